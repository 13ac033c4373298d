"""Models for other programs: ONNX, torch.export, timm, Hugging Face Hub."""
