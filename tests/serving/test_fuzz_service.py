"""Whatever JSON is sent, the answer is an answer or a refusal in words, never a mistake of the server."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swath.serving.client import Client

numbers = st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False))
degrees = st.floats(-400, 400)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=12))
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
positions = st.lists(degrees, min_size=2, max_size=3)


def closed(ring: list[Any]) -> list[Any]:
    return [*ring, ring[0]]


rings = st.lists(st.tuples(degrees, st.floats(-90, 90)).map(list), min_size=3, max_size=7).map(closed)
areas = st.one_of(
    st.builds(lambda one: {"type": "Polygon", "coordinates": [one]}, rings),
    st.builds(
        lambda some: {"type": "MultiPolygon", "coordinates": [[one] for one in some]},
        st.lists(rings, min_size=1, max_size=3),
    ),
    anything,
)


def joined(ends: list[object]) -> str:
    return "/".join(map(str, ends))


days = st.one_of(st.dates().map(str), st.datetimes().map(lambda moment: moment.isoformat()), scalars)
filters = st.fixed_dictionaries(
    {},
    optional={
        "sensors": st.one_of(st.just(["rgb_aerial"]), st.lists(st.text(max_size=8), max_size=3), anything),
        "gsd": st.one_of(st.lists(numbers, min_size=2, max_size=2), anything),
        "datetime": st.one_of(st.lists(days, min_size=1, max_size=2).map(joined), anything),
        "intersects": areas,
        "min_valid": scalars,
        "max_cloud": scalars,
    },
)


def requests(ids: list[str]) -> st.SearchStrategy[Any]:
    names = st.one_of(st.sampled_from(ids), st.text(max_size=40))
    optional = {
        "like": st.one_of(st.lists(names, max_size=4), anything),
        "unlike": st.one_of(st.lists(names, max_size=4), anything),
        "place": st.one_of(positions, anything),
        "area": areas,
        "k": st.one_of(st.integers(1, 30), scalars),
        "filters": st.one_of(filters, anything),
        "diverse": st.one_of(st.booleans(), scalars),
        "group_by_location": st.booleans(),
    }
    some = st.lists(st.sampled_from(ids), min_size=1, max_size=4)
    plausible = st.fixed_dictionaries(
        {"like": some},
        optional={name: optional[name] for name in ("k", "filters", "diverse", "group_by_location")},
    )
    return st.one_of(st.fixed_dictionaries({}, optional=optional), plausible, anything)


@pytest.fixture(scope="module")
def ids(address: str) -> list[str]:
    with Client(address) as client:
        return [chip.id for chip in client.chips(limit=18).chips]


def test_any_json(address: str, ids: list[str]) -> None:
    accepted = 0

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(requests(ids))
    def ask(body: Any) -> None:
        nonlocal accepted
        answer = http.post("/api/search", json=body)
        told = answer.json()
        if answer.status_code == 200:
            accepted += 1
            assert told["returned"] == len(told["results"]) <= told["k"]
        else:
            assert answer.status_code in (400, 404, 422), (answer.status_code, told, body)
            assert told["detail"]

    with httpx.Client(base_url=address, trust_env=False) as http:
        ask()
        assert accepted > 3  # else the strategy tests refusals only
        assert http.get("/api/health").status_code == 200


def test_any_query_string(address: str) -> None:
    names = st.sampled_from(["bbox", "sensor", "gsd_min", "gsd_max", "datetime", "time_min", "limit", "x"])
    values = st.one_of(
        st.text(max_size=20),
        numbers.map(str),
        days.map(str),
        st.lists(degrees, min_size=4, max_size=4).map(lambda four: ",".join(map(str, four))),
    )

    @settings(
        max_examples=100,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(
        st.dictionaries(names, values, max_size=4),
        st.sampled_from(["/api/footprints", "/api/chips", "/api/tiles/15/17749/11753.png"]),
    )
    def ask(query: dict[str, str], path: str) -> None:
        answer = http.get(path, params=query)
        assert answer.status_code in (200, 204, 422), (answer.status_code, answer.text, query)

    with httpx.Client(base_url=address, trust_env=False) as http:
        ask()
