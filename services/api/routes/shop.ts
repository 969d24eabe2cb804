import type { Routes } from "../routing/route";
import { ACCOUNT_ROUTES } from "./accounts";
import { ADMIN_ROUTES } from "./admin";
import { ORDER_ROUTES } from "./orders";
import { PRODUCT_ROUTES } from "./products";

/** The shop's routes. Only these and those of token.ts, health.ts, nodes.ts, problems.ts and docs-page.ts are reachable from outside. */
export const ROUTES: Routes = { ...ACCOUNT_ROUTES, ...PRODUCT_ROUTES, ...ORDER_ROUTES, ...ADMIN_ROUTES };
