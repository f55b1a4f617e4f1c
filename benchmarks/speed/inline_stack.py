"""Reference: an order service as it is often written. FastAPI, Tortoise ORM, asyncpg; uvicorn on uvloop and httptools.

POST /orders inserts the row, calls `place_order`, updates the row, and answers. There is no log-in and no history, and
only the unique index refuses a repeated order. `INLINE_PLACES` says what `place_order` does:

    shipped  blocks for half a second, and fails one time in ten, as the exercise's own does
    instant  returns at once
    store    is not called, and the row is not updated
"""
# mypy: disable-error-code="import-not-found, misc, no-any-return, untyped-decorator"

import argparse
import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import uvicorn
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field
from tortoise import Tortoise, fields
from tortoise.contrib.fastapi import RegisterTortoise
from tortoise.models import Model

from quiktrade import processes

PLACES = os.environ.get("INLINE_PLACES", "instant")
CONNECTIONS = 16
"""The connections of each process: two processes have one for each of 32 clients."""


class PlacementFailed(Exception):
    pass


def place_order(order_id: UUID) -> str:
    if PLACES == "shipped":
        time.sleep(0.5)
        if random.random() < 0.1:  # noqa: S311  no secret
            raise PlacementFailed
    return f"V-{order_id}"


class Order(Model):
    id = fields.UUIDField(primary_key=True)
    client_order_id = fields.CharField(max_length=64, unique=True)
    type = fields.CharField(max_length=10)
    side = fields.CharField(max_length=4)
    instrument = fields.CharField(max_length=12)
    quantity = fields.BigIntField()
    limit_price = fields.DecimalField(max_digits=18, decimal_places=8, null=True)
    stop_price = fields.DecimalField(max_digits=18, decimal_places=8, null=True)
    time_in_force = fields.CharField(max_length=3)
    expires_at = fields.DatetimeField(null=True)
    status = fields.CharField(max_length=16)
    venue_order_id = fields.CharField(max_length=64, default="")
    last_error = fields.CharField(max_length=500, default="")
    created_at = fields.DatetimeField(auto_now_add=True, db_index=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "orders"


class NewOrder(BaseModel):
    client_order_id: str = Field(min_length=1, max_length=64)
    type: Literal["market", "limit", "stop", "stop_limit"]
    side: Literal["buy", "sell"]
    instrument: str = Field(min_length=12, max_length=12)
    quantity: int = Field(gt=0)
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: Literal["day", "gtc", "ioc", "fok", "gtd"] = "day"
    expires_at: datetime | None = None


class StoredOrder(NewOrder):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    status: str
    venue_order_id: str
    last_error: str
    created_at: datetime
    updated_at: datetime


class Page(BaseModel):
    results: list[StoredOrder]


def _database() -> dict[str, Any]:
    credentials = {
        "host": os.environ["INLINE_HOST"],
        "port": 5432,
        "user": os.environ["INLINE_USER"],
        "password": "",
        "database": os.environ["INLINE_DATABASE"],
        "minsize": 1,
        "maxsize": CONNECTIONS,
    }
    return {
        "connections": {"default": {"engine": "tortoise.backends.asyncpg", "credentials": credentials}},
        "apps": {"models": {"models": ["benchmarks.speed.inline_stack"], "default_connection": "default"}},
    }


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    async with RegisterTortoise(app, config=_database()):
        yield


app = FastAPI(lifespan=_life)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/orders", status_code=201, response_model=StoredOrder)
async def submit(new: NewOrder) -> Order:
    order = await Order.create(**new.model_dump(), status="pending")
    if PLACES == "store":
        return order
    try:
        order.venue_order_id = place_order(order.id)
        order.status = "placed"
    except PlacementFailed:
        order.status = "failed"
        order.last_error = "The venue did not take it."
    await order.save(update_fields=["status", "venue_order_id", "last_error", "updated_at"])
    if order.status == "failed":
        raise HTTPException(500, "Internal server error while placing the order")
    return order


@app.get("/orders/{order_id}", response_model=StoredOrder)
async def read(order_id: UUID) -> Order:
    order = await Order.get_or_none(id=order_id)
    if order is None:
        raise HTTPException(404, "There is no such order.")
    return order


@app.get("/orders", response_model=Page)
async def page(limit: int = Query(50, ge=1, le=500)) -> dict[str, list[Order]]:
    return {"results": await Order.all().order_by("-created_at").limit(limit)}


async def _create_tables() -> None:
    await Tortoise.init(config=_database())
    await Tortoise.generate_schemas(safe=True)
    await Tortoise.close_connections()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    processes.end_with_parent()
    asyncio.run(_create_tables())
    uvicorn.run(
        "benchmarks.speed.inline_stack:app",
        host="127.0.0.1",
        port=arguments.port,
        workers=arguments.workers,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
