// A client as a user writes one with the types of the OpenAPI document: it is compiled, not run.
import createClient from "openapi-fetch";
import type { components, paths } from "./quiktrade.js";

const client = createClient<paths>({ baseUrl: "http://127.0.0.1:8000" });
const login = await client.POST("/api/v1/auth/token", { body: { username: "alice", password: "secret" } });
const headers = { Authorization: `Bearer ${login.data?.access}` };

const limit: components["schemas"]["NewOrderRequest"] = {
  type: "limit", side: "buy", instrument: "US0378331005", quantity: 100, limit_price: "187.50", place_by: null,
};
const submitted = await client.POST("/api/v1/orders", { headers, body: limit });
const page = await client.GET("/api/v1/orders", {
  headers, params: { query: { status: ["pending", "placed"], side: "buy", ordering: "created_at", limit: 2 } },
});
const next: string | null | undefined = page.data?.next_cursor;
const prices: (string | null)[] = page.data?.results.map((order) => order.limit_price) ?? [];
const path = { id: submitted.data?.id ?? "" };
const read = await client.GET("/api/v1/orders/{id}", { headers, params: { path } });
const canceled = await client.POST("/api/v1/orders/{id}/cancel", { headers, params: { path } });
const code: components["schemas"]["Status"] | undefined = canceled.data?.status;
console.log(read.data?.status, code, next, prices, canceled.error?.type, canceled.error?.errors?.[0]?.pointer);

// What the API refuses does not compile.
// @ts-expect-error no such side
await client.POST("/api/v1/orders", { headers, body: { ...limit, side: "hold" } });
// @ts-expect-error no such status
await client.GET("/api/v1/orders", { headers, params: { query: { status: ["lost"] } } });
// @ts-expect-error a page is no array
page.data?.map((order: unknown) => order);
