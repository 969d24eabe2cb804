/* Generated from the OpenAPI document by `npm run client`. Don't edit it: change the contracts, and run that. */

export interface paths {
    "/register": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Creates an account
         * @description The same registration may be repeated for 15 minutes and until the first login: it returns the same account. Another password for a registered address is refused, and counts as a failed login.
         */
        post: operations["register"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/token": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Logs in: an access token and a refresh token for an e-mail address and its password. A form may also refresh them
         * @description Opens a session, which lasts as long as its tokens are refreshed. The form is that of OAuth 2.0 (RFC 6749, sections 4.3 and 6), and so are its errors of status 400.
         */
        post: operations["logIn"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/token/refresh": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * New tokens for a refresh token, which works only once: using it again later ends its session
         * @description A refresh token that is used again within a few seconds gets the same new refresh token, so that the request may be repeated after a lost response. Later use ends the session, since the token may have been stolen.
         */
        post: operations["refreshTokens"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/logout": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Ends the session of a refresh token; does nothing if the token is unknown
         * @description Access tokens of the session are refused by every gateway within two seconds.
         */
        post: operations["logOut"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/me": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The caller's account
         * @description The account to which the access token belongs.
         */
        get: operations["getMe"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/me/password": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Sets a new password; ends all other sessions of the caller
         * @description The session of the access token stays active.
         */
        put: operations["changePassword"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/.well-known/jwks.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The public keys that verify access tokens (RFC 7517)
         * @description A key is published before it signs, and until its last token has expired. The response may be cached for the time in `Cache-Control`.
         */
        get: operations["getPublicKeys"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/products": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The catalogue, page by page
         * @description A product must match all parameters. A page ends at its `limit` or at 256 KiB, so a short page is not necessarily the last one: only a `next_cursor` of null means that there are no more.
         */
        get: operations["listProducts"];
        put?: never;
        /**
         * Puts a product on sale; the caller becomes its seller
         * @description The quantity, unless 0, is the first entry of the product's ledger.
         */
        post: operations["createProduct"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/products/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * A product
         * @description A product that was taken off sale is not found.
         */
        get: operations["getProduct"];
        put?: never;
        post?: never;
        /**
         * Takes a product off sale, for its seller and for admins; existing orders keep it
         * @description The product is no longer found, listed or ordered. Its ledger is kept as well.
         */
        delete: operations["archiveProduct"];
        options?: never;
        head?: never;
        /**
         * Changes a product, for its seller and for admins
         * @description Only the given fields change. The stock has an operation of its own. Orders keep the name and the price that they were placed with.
         */
        patch: operations["updateProduct"];
        trace?: never;
    };
    "/products/{id}/stock": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The stock's ledger, newest movement first, for the seller and for admins
         * @description The initial stock, adjustments, and the units that orders have reserved or released.
         */
        get: operations["listStockMovements"];
        put?: never;
        /**
         * Adds units to the stock or removes them, for the seller and for admins
         * @description Every change becomes an entry of the product's ledger.
         */
        post: operations["adjustStock"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/orders": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The caller's orders, newest first; an admin may list those of others
         * @description `user_id` and `all` are for admins, and contradict each other. A page ends at its `limit` or at 256 KiB.
         */
        get: operations["listOrders"];
        put?: never;
        /**
         * Places an order. It is PENDING at first, and confirmed or rejected a moment later
         * @description The order is stored when the response arrives, and its stock is reserved afterwards: follow the order, or read it again, to see its final status. Send an `Idempotency-Key`, and the request may be repeated after any failure.
         */
        post: operations["createOrder"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/orders/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * An order, for its buyer and for admins
         * @description An order of another user is not found, except by an admin.
         */
        get: operations["getOrder"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/orders/{id}/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The order's history, and each change as it happens (server-sent events)
         * @description The stream stays open until the order is final, for 15 minutes at most. Read it in a terminal, with the URL of this
         *     server in `SHOP`, the id of an order in `ORDER` and an access token in `TOKEN`:
         *
         *         curl -N "$SHOP/orders/$ORDER/events" -H "Authorization: Bearer $TOKEN"
         */
        get: operations["followOrder"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/orders/{id}/cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Cancels a PENDING or CONFIRMED order and releases its stock
         * @description The stock is released shortly after the response. Cancelling a cancelled order again returns it unchanged.
         */
        post: operations["cancelOrder"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/users": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The account with an e-mail address
         * @description Finds the account by its whole e-mail address, in upper or lower case.
         */
        get: operations["findAccount"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/users/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        /**
         * Disables or enables an account, or gives it another role; takes effect everywhere within 2 s
         * @description Disabling an account ends its sessions. A new role also applies to tokens that were issued before. The last enabled admin can be neither disabled nor demoted.
         */
        patch: operations["updateAccount"];
        trace?: never;
    };
    "/admin/audit-log": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Who did what, newest first
         * @description Logins, accounts, passwords, keys, and what admins do to resources of other users. With several filters a page may take too long and get 503: then filter by one of them.
         */
        get: operations["listAuditLog"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/outbox": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Outbox rows that are pending or parked, oldest first
         * @description Pending rows are republished until the consumer replies. Parked ones are not: remove the cause, then replay them.
         */
        get: operations["listOutboxRows"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/outbox/{id}/replay": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Retries a parked outbox row
         * @description The row becomes pending again, as if it were new.
         */
        post: operations["replayOutboxRow"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/consistency": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Checks each database, and whether orders and reservations agree
         * @description Reads every order and every reservation, which takes a while in a large shop.
         */
        get: operations["checkConsistency"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/repair": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Repairs differences between orders and reservations after a backup was restored, or reports what it would do
         * @description At most 100 repairs are made or listed per request. Differences that only a person can decide are listed and stay as they are.
         */
        post: operations["repairOrders"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/.well-known/oauth-authorization-server": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The grants that POST /token accepts, for OAuth clients (RFC 8414)
         * @description Describes `POST /token` to OAuth libraries.
         */
        get: operations["getAuthorizationServer"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/health/live": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Whether the process runs
         * @description For supervisors that restart a process.
         */
        get: operations["getLiveness"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/health/ready": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Whether this gateway can serve
         * @description For load balancers: 503 while the gateway starts or shuts down, and while it can't reach the other nodes.
         */
        get: operations["getReadiness"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/health": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Whether every service and the transporter respond, and every database accepts writes
         * @description For monitoring: `checks` shows which part does not work.
         */
        get: operations["getHealth"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/nodes": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The nodes that this gateway can reach, with their services and state
         * @description Nodes that don't report their state within a second are listed without it.
         */
        get: operations["listNodes"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/admin/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The state of the whole shop, once per second (server-sent events)
         * @description Each event has the type `snapshot`, and a snapshot as JSON in its data: one at once, and one per second as long as the stream
         *     is open, for 15 minutes at most. A client that reads too slowly misses snapshots. In a terminal, with the URL of this server in `SHOP` and an admin's access token in `TOKEN`:
         *
         *         curl -N "$SHOP/admin/events" -H "Authorization: Bearer $TOKEN"
         */
        get: operations["watchOperations"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/problems/{code}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Explains an error code
         * @description The page that the `type` of a problem leads to, for people.
         */
        get: operations["explainProblem"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/openapi.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * This document
         * @description It is generated from the routes and contracts that validate requests.
         */
        get: operations["getOpenApiDocument"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/docs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Swagger UI, for reading this document and trying requests
         * @description A page for browsers.
         */
        get: operations["getDocumentation"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/docs/{file}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * A file of the Swagger UI page
         * @description A script, a style or the icon of the page.
         */
        get: operations["getDocumentationFile"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /**
         * Registration
         * @description A new account.
         */
        Registration: {
            /** Format: idn-email */
            email: string;
            /**
             * Format: password
             * @description At most 72 bytes of UTF-8, and at most 30 combining marks in a row.
             */
            password: string;
        };
        /**
         * Error code
         * @description Which problem it is. Codes are stable, and `GET /problems/{code}` explains each.
         * @enum {string}
         */
        ErrorCode: "MALFORMED_JSON" | "BAD_REQUEST" | "UNAUTHENTICATED" | "INVALID_CREDENTIALS" | "INVALID_REFRESH_TOKEN" | "FORBIDDEN" | "NOT_FOUND" | "PRODUCT_NOT_FOUND" | "ORDER_NOT_FOUND" | "USER_NOT_FOUND" | "METHOD_NOT_ALLOWED" | "EMAIL_TAKEN" | "INSUFFICIENT_STOCK" | "ORDER_NOT_CANCELLABLE" | "IDEMPOTENCY_IN_FLIGHT" | "NOT_PARKED" | "LAST_ADMIN" | "PRECONDITION_FAILED" | "BODY_TOO_LARGE" | "UNSUPPORTED_MEDIA_TYPE" | "VALIDATION_ERROR" | "IDEMPOTENCY_KEY_REUSED" | "TOO_MANY_REQUESTS" | "INTERNAL_ERROR" | "SERVICE_UNAVAILABLE";
        /**
         * Problem
         * @description What all problems have in common (RFC 9457).
         */
        Problem: {
            /** @description The path of a page that explains the problem; it begins with the base path. */
            type: string;
            /** @description The title of the status. */
            title: string;
            /** @description The status of the response. */
            status: number;
            code: components["schemas"]["ErrorCode"];
            /** @description A sentence for people, which may change. */
            detail: string;
            /** @description The `X-Request-Id` of the response, which is in the log, too. */
            request_id: string;
        };
        /**
         * Malformed json problem
         * @description The body can't be parsed as JSON in UTF-8. Check its syntax and encoding; sending it again unchanged fails again.
         */
        MalformedJsonProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "MALFORMED_JSON";
        };
        /**
         * Bad request problem
         * @description A query parameter, a header, a cursor or the HTTP message itself is invalid. `detail` names it; `allowed` lists the values of a parameter that has few.
         */
        BadRequestProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "BAD_REQUEST";
            /** @description The accepted values of the query parameter, if there are few. */
            allowed?: (string | number | boolean | null)[];
        };
        /**
         * Body too large problem
         * @description The body has more than 100 KiB, before or after decompression.
         */
        BodyTooLargeProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "BODY_TOO_LARGE";
        };
        /**
         * Unsupported media type problem
         * @description The body must be JSON in UTF-8, uncompressed or in a supported content coding, which the header `Accept-Encoding` lists if the coding was the reason.
         */
        UnsupportedMediaTypeProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "UNSUPPORTED_MEDIA_TYPE";
        };
        /**
         * Field error
         * @description A field of a body that breaks the contract.
         */
        FieldError: {
            /** @description Its path, such as `items[0].quantity`. */
            field: string;
            /** @description What is wrong, for people. */
            message: string;
            /** @description The accepted values, if there are few. */
            allowed?: (string | number | boolean | null)[];
            /** @description The bound that is exceeded. */
            limit?: number;
        };
        /**
         * Validation error problem
         * @description The body breaks the contract. `errors` names each field with what is wrong; `allowed` and `limit` have the values that would be accepted.
         */
        ValidationErrorProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "VALIDATION_ERROR";
            /** @description At most 20 errors, one per field. */
            errors: components["schemas"]["FieldError"][];
        };
        /**
         * Precondition failed problem
         * @description The resource has changed since the version in `If-Match`. Read it again, and decide whether the change still applies.
         */
        PreconditionFailedProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "PRECONDITION_FAILED";
        };
        /**
         * Too many requests problem
         * @description A limit was reached: failed logins, registrations, requests, or your share of a queue. Wait for the seconds in `retry_after`, which the header `Retry-After` repeats.
         */
        TooManyRequestsProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "TOO_MANY_REQUESTS";
            /** @description Seconds to wait before retrying, as in the header `Retry-After`. */
            retry_after: number;
        };
        /**
         * Email taken problem
         * @description An account with this e-mail address exists. Log in, or register another address.
         */
        EmailTakenProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "EMAIL_TAKEN";
        };
        /**
         * Internal error problem
         * @description A bug on our side. Nothing is known about the effect of the request; with an Idempotency-Key it is safe to retry. Quote the request id when you report it.
         */
        InternalErrorProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "INTERNAL_ERROR";
        };
        /**
         * Service unavailable problem
         * @description A service or its database is unavailable or overloaded. Retry after the seconds in `retry_after`; with an Idempotency-Key it takes effect once.
         */
        ServiceUnavailableProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "SERVICE_UNAVAILABLE";
            /** @description Seconds to wait before retrying, as in the header `Retry-After`. */
            retry_after: number;
        };
        /**
         * Role
         * @description An `admin` may also use the routes for admins, and act on products and orders of others.
         * @enum {string}
         */
        Role: "user" | "admin";
        /**
         * User
         * @description An account, as its owner sees it.
         */
        User: {
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            id: string;
            /** Format: idn-email */
            email: string;
            role: components["schemas"]["Role"];
            /** Format: date-time */
            created_at: string;
        };
        /**
         * Credentials
         * @description What a user logs in with.
         */
        Credentials: {
            /** @description In upper or lower case. */
            email: string;
            /**
             * Format: password
             * @description At most 72 bytes of UTF-8, and at most 30 combining marks in a row.
             */
            password: string;
        };
        /**
         * Password grant
         * @description A login (RFC 6749, section 4.3.2).
         */
        PasswordGrant: {
            /** @constant */
            grant_type: "password";
            /** @description The e-mail address, in upper or lower case. */
            username: string;
            /**
             * Format: password
             * @description At most 72 bytes of UTF-8, and at most 30 combining marks in a row.
             */
            password: string;
            /** @description Ignored. */
            client_id?: string;
            /** @description Ignored. */
            client_secret?: string;
            /** @description Ignored: a token has all rights of its user. */
            scope?: string;
        };
        /**
         * Refresh grant
         * @description A request for new tokens (RFC 6749, section 6).
         */
        RefreshGrant: {
            /** @constant */
            grant_type: "refresh_token";
            refresh_token: string;
            /** @description Ignored. */
            client_id?: string;
            /** @description Ignored. */
            client_secret?: string;
            /** @description Ignored: a token has all rights of its user. */
            scope?: string;
        };
        /**
         * OAuth error
         * @description The error response to a form-encoded token request (RFC 6749, section 5.2).
         */
        OAuthError: {
            /** @enum {string} */
            error: "invalid_request" | "invalid_grant" | "unsupported_grant_type";
            error_description: string;
        };
        /**
         * Invalid credentials problem
         * @description The e-mail address or the password is wrong, or the account is disabled. Which of these is not revealed.
         */
        InvalidCredentialsProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "INVALID_CREDENTIALS";
        };
        /**
         * Token pair
         * @description The tokens of a session (RFC 6749, section 5.1).
         */
        TokenPair: {
            /** @description For the header `Authorization`, after `Bearer`. */
            access_token: string;
            /** @constant */
            token_type: "bearer";
            /** @description The lifetime of the access token in seconds. */
            expires_in: number;
            /** @description For one refresh only. */
            refresh_token: string;
        };
        /**
         * Refresh token
         * @description The newest refresh token of a session.
         */
        RefreshToken: {
            refresh_token: string;
        };
        /**
         * Invalid refresh token problem
         * @description The refresh token is unknown, expired or was used before. Log in again.
         */
        InvalidRefreshTokenProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "INVALID_REFRESH_TOKEN";
        };
        /**
         * Unauthenticated problem
         * @description The request has no valid access token: it is missing, expired, or its session has ended. Get a new one with the refresh token, or log in again.
         */
        UnauthenticatedProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "UNAUTHENTICATED";
        };
        /**
         * Password change
         * @description A new password, and the current one as proof.
         */
        PasswordChange: {
            /**
             * Format: password
             * @description At most 72 bytes of UTF-8, and at most 30 combining marks in a row.
             */
            current_password: string;
            /**
             * Format: password
             * @description At most 72 bytes of UTF-8, and at most 30 combining marks in a row.
             */
            new_password: string;
        };
        /**
         * Public key
         * @description A public signing key (RFC 7517, section 4).
         */
        PublicKey: {
            /** @constant */
            kty: "RSA";
            n: string;
            e: string;
            kid: string;
            /** @constant */
            alg: "RS256";
            /** @constant */
            use: "sig";
        };
        /**
         * Key set
         * @description The public keys that are valid now (RFC 7517, section 5).
         */
        KeySet: {
            keys: components["schemas"]["PublicKey"][];
        };
        /**
         * New product
         * @description A product to be put on sale.
         */
        NewProduct: {
            name: string;
            /**
             * Format: decimal
             * @description In the major unit of the shop's currency, such as euros, with at most two decimals: more are refused, never rounded.
             */
            price: number;
            /** @description Units available for sale. */
            quantity: number;
            description?: string | null;
            category?: string | null;
            /** @description The seller's own number for it (stock keeping unit). */
            sku?: string | null;
        };
        /**
         * Idempotency key reused problem
         * @description This Idempotency-Key was used before for a different request. Use a new key for each new request.
         */
        IdempotencyKeyReusedProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "IDEMPOTENCY_KEY_REUSED";
        };
        /**
         * Idempotency in flight problem
         * @description The first request with this Idempotency-Key is still in progress. Retry with the same key in a moment.
         */
        IdempotencyInFlightProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "IDEMPOTENCY_IN_FLIGHT";
        };
        /**
         * Product
         * @description A product on sale.
         */
        Product: {
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            id: string;
            name: string;
            /**
             * Format: decimal
             * @description In the major unit of the shop's currency, such as euros, with at most two decimals: more are refused, never rounded.
             */
            price: number;
            /** @description Units available for sale. */
            quantity: number;
            description: string | null;
            category: string | null;
            /** @description The seller's own number for it (stock keeping unit). */
            sku: string | null;
            /**
             * Format: uuid
             * @description The user who sells it.
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            seller_id: string;
            /** Format: date-time */
            created_at: string;
            /** Format: date-time */
            updated_at: string;
        };
        /**
         * Product page
         * @description One page of a list.
         */
        ProductPage: {
            items: components["schemas"]["Product"][];
            /** @description The `cursor` of the next page; null on the last page. */
            next_cursor: string | null;
        };
        /**
         * Product not found problem
         * @description No product on sale has this id. It may have been taken off sale.
         */
        ProductNotFoundProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "PRODUCT_NOT_FOUND";
        };
        /**
         * Product changes
         * @description Fields that are left out stay as they are. Null clears a description, category or sku.
         */
        ProductChanges: {
            name?: string;
            /**
             * Format: decimal
             * @description In the major unit of the shop's currency, such as euros, with at most two decimals: more are refused, never rounded.
             */
            price?: number;
            description?: string | null;
            category?: string | null;
            /** @description The seller's own number for it (stock keeping unit). */
            sku?: string | null;
        };
        /**
         * Forbidden problem
         * @description The token is valid, but its user may not do this: it is for admins, or for the owner of the resource.
         */
        ForbiddenProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "FORBIDDEN";
        };
        /**
         * Stock adjustment
         * @description A change of a product's stock.
         */
        StockAdjustment: {
            /** @description Units to add; negative to remove them. */
            delta: number;
            reason?: string;
        };
        /**
         * Shortage
         * @description A line of an order that can't be fulfilled.
         */
        Shortage: {
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            product_id: string;
            /** @description Units in the order. */
            wanted: number;
            /** @description Units left; null if the product is no longer sold. */
            available: number | null;
        };
        /**
         * Insufficient stock problem
         * @description There are too few units. For an order, `shortages` has each product with the units wanted and available. Order fewer, or try again later.
         */
        InsufficientStockProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "INSUFFICIENT_STOCK";
            /** @description For an order: its lines that can't be fulfilled. */
            shortages?: components["schemas"]["Shortage"][];
        };
        /**
         * Movement
         * @description A change of a product's stock: an entry of its ledger.
         */
        Movement: {
            /** Format: int64 */
            id: number;
            /** @description Units added; negative if they were removed. */
            delta: number;
            /** @description Units available afterwards. */
            balance: number;
            reason: string;
            /**
             * Format: uuid
             * @description The order that reserved or released the units; null for other changes.
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            order_id: string | null;
            /** Format: date-time */
            created_at: string;
        };
        /**
         * Movement page
         * @description One page of a list.
         */
        MovementPage: {
            items: components["schemas"]["Movement"][];
            /** @description The `cursor` of the next page; null on the last page. */
            next_cursor: string | null;
        };
        /**
         * New order line
         * @description A product to order.
         */
        NewOrderLine: {
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            product_id: string;
            /** @description Units. Those of lines with the same product are added up. */
            quantity: number;
        };
        /**
         * New order
         * @description What to order.
         */
        NewOrder: {
            items: components["schemas"]["NewOrderLine"][];
        };
        /**
         * Order status
         * @description PENDING until its stock is reserved, then CONFIRMED; REJECTED if there is not enough stock; CANCELLED by its buyer or an admin.
         * @enum {string}
         */
        OrderStatus: "PENDING" | "CONFIRMED" | "REJECTED" | "CANCELLED";
        /**
         * Order line
         * @description An ordered product, with its name and price at the time of ordering.
         */
        OrderLine: {
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            product_id: string;
            name: string;
            /**
             * Format: decimal
             * @description In the major unit of the shop's currency, such as euros, with at most two decimals: more are refused, never rounded.
             */
            unit_price: number;
            /** @description Units. */
            quantity: number;
        };
        /**
         * Status change
         * @description When an order got a status.
         */
        StatusChange: {
            status: components["schemas"]["OrderStatus"];
            /** Format: date-time */
            at: string;
        };
        /**
         * Order
         * @description An order of one user.
         */
        Order: {
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            id: string;
            /**
             * Format: uuid
             * @description The user who placed it.
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            user_id: string;
            status: components["schemas"]["OrderStatus"];
            /**
             * Format: decimal
             * @description In the major unit of the shop's currency, such as euros, with at most two decimals: more are refused, never rounded.
             */
            total_price: number;
            items: components["schemas"]["OrderLine"][];
            /** @description Why it is rejected, or why it is not processed; otherwise null. */
            reason: string | null;
            /** @description Every status that it has had, the first one first. */
            history: components["schemas"]["StatusChange"][];
            /** Format: date-time */
            created_at: string;
            /** Format: date-time */
            updated_at: string;
        };
        /**
         * Order page
         * @description One page of a list.
         */
        OrderPage: {
            items: components["schemas"]["Order"][];
            /** @description The `cursor` of the next page; null on the last page. */
            next_cursor: string | null;
        };
        /**
         * Order not found problem
         * @description No order of yours has this id. An order of another user gets the same response.
         */
        OrderNotFoundProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "ORDER_NOT_FOUND";
        };
        /**
         * Empty body
         * @description An object without fields, which may be left out.
         */
        EmptyBody: Record<string, never>;
        /**
         * Order not cancellable problem
         * @description The order was rejected, so there is nothing to cancel.
         */
        OrderNotCancellableProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "ORDER_NOT_CANCELLABLE";
        };
        /**
         * User not found problem
         * @description No account has this id or e-mail address.
         */
        UserNotFoundProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "USER_NOT_FOUND";
        };
        /**
         * Account
         * @description A user's account, as admins see it.
         */
        Account: {
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            id: string;
            /** Format: idn-email */
            email: string;
            role: components["schemas"]["Role"];
            /** @description If true, the user can't log in and has no sessions. */
            disabled: boolean;
            /** Format: date-time */
            created_at: string;
        };
        /**
         * Account changes
         * @description Fields that are left out stay as they are.
         */
        AccountChanges: {
            /** @description `true` ends all sessions of the user and prevents new ones. */
            disabled?: boolean;
            role?: components["schemas"]["Role"];
        };
        /**
         * Last admin problem
         * @description The shop would be left without an enabled admin. Make somebody else an admin first.
         */
        LastAdminProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "LAST_ADMIN";
        };
        /**
         * Audit entry
         * @description Who did what to which resource.
         */
        AuditEntry: {
            /** Format: int64 */
            id: number;
            /** Format: date-time */
            at: string;
            /** @description A user's id, or `system` for the console and the shop itself; null if unknown. */
            actor: (string | "system") | null;
            /** @enum {string} */
            action: "admin.created" | "user.registered" | "user.disabled" | "user.enabled" | "user.promoted" | "user.demoted" | "login.succeeded" | "login.failed" | "logout" | "sessions.omitted" | "password.changed" | "password.refused" | "failures.omitted" | "refresh.reused" | "key.created" | "key.deleted" | "product.updated" | "product.archived" | "stock.adjusted" | "order.cancelled" | "outbox.replayed" | "order.repaired";
            /** @description The id of the resource that `action` begins with, a user's id for logins and passwords; null if there is none. */
            subject: string | null;
            /** @description The client's IP address; null if there is none. */
            address: string | null;
            /** @description The `X-Request-Id` of the request; null if there was none. */
            request_id: string | null;
        };
        /**
         * Audit entry page
         * @description One page of a list.
         */
        AuditEntryPage: {
            items: components["schemas"]["AuditEntry"][];
            /** @description The `cursor` of the next page; null on the last page. */
            next_cursor: string | null;
        };
        /**
         * Outbox row
         * @description An event that is published until its consumer has replied.
         */
        OutboxRow: {
            /** Format: int64 */
            id: number;
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            order_id: string;
            event: string;
            /**
             * @description PENDING until the consumer has replied, then SETTLED; PARKED if the consumer can't process it.
             * @enum {string}
             */
            state: "PENDING" | "SETTLED" | "PARKED";
            /** @description How often it was published. */
            attempts: number;
            /** Format: date-time */
            next_attempt_at: string;
            /** @description Why the consumer refused it; null if it did not. */
            last_error: string | null;
            /** Format: date-time */
            created_at: string;
        };
        /**
         * Outbox row page
         * @description One page of a list.
         */
        OutboxRowPage: {
            items: components["schemas"]["OutboxRow"][];
            /** @description The `cursor` of the next page; null on the last page. */
            next_cursor: string | null;
        };
        /**
         * Not parked problem
         * @description Only parked outbox rows can be replayed; this one is pending or settled.
         */
        NotParkedProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "NOT_PARKED";
        };
        /**
         * Not found problem
         * @description No resource has this path.
         */
        NotFoundProblem: components["schemas"]["Problem"] & {
            /** @enum {string} */
            code: "NOT_FOUND";
        };
        /**
         * Consistency check
         * @description Whether the databases keep one invariant.
         */
        ConsistencyCheck: {
            /** @description The invariant. */
            name: string;
            ok: boolean;
            violations: number;
            /** @description The first violations. */
            sample: string[];
        };
        /**
         * Consistency report
         * @description Whether the databases keep every invariant, and agree.
         */
        ConsistencyReport: {
            ok: boolean;
            /** Format: date-time */
            checked_at: string;
            /** @description Orders with a pending outbox row, which are no violations. */
            in_flight: number;
            /** @description The age in seconds of the oldest pending outbox row; null if there is none. */
            oldest_in_flight: number | null;
            /** @description Parked outbox rows. */
            parked: number;
            checks: components["schemas"]["ConsistencyCheck"][];
        };
        /**
         * Repair request
         * @description Whether to repair or only to report.
         */
        RepairRequest: {
            /** @description `true`: make the repairs; otherwise they are only listed. */
            apply?: boolean;
        };
        /**
         * Repair
         * @description A difference that can be repaired.
         */
        Repair: {
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            order_id: string;
            /** @description How the order and its reservation differ. */
            what: string;
            /**
             * @description The event to publish again, or `release` for stock to be released.
             * @enum {string}
             */
            action: "order.created" | "order.cancelled" | "release";
        };
        /**
         * Repair decision
         * @description A difference that a person must decide.
         */
        RepairDecision: {
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            order_id: string;
            /** @description How the order and its reservation differ. */
            what: string;
        };
        /**
         * Repair report
         * @description What was repaired, or would be.
         */
        RepairReport: {
            /** @description Whether the repairs were made. */
            applied: boolean;
            repairs: components["schemas"]["Repair"][];
            /** @description The first of those in `undecided`. */
            decisions: components["schemas"]["RepairDecision"][];
            /** @description Differences that a person must decide. */
            undecided: number;
            /** @description Whether there are more repairs, for another request. */
            more: boolean;
        };
        /**
         * Authorization server
         * @description The metadata of an authorization server (RFC 8414, section 2).
         */
        AuthorizationServer: {
            issuer: string;
            token_endpoint: string;
            jwks_uri: string;
            response_types_supported: string[];
            grant_types_supported: string[];
            token_endpoint_auth_methods_supported: string[];
            service_documentation: string;
        };
        /**
         * Health check
         * @description Whether one part of the shop works.
         */
        HealthCheck: {
            name: string;
            ok: boolean;
            /** @description What is wrong. */
            detail?: string;
        };
        /**
         * Health
         * @description Whether a gateway or the whole shop works.
         */
        Health: {
            /** @enum {string} */
            status: "ok" | "unavailable";
            checks: components["schemas"]["HealthCheck"][];
        };
        /**
         * Node
         * @description A process of the shop. What it does not report is null.
         */
        Node: {
            id: string;
            services: string[];
            /** @description The shop's version. */
            version: string | null;
            /** @description Seconds since its start. */
            uptime: number | null;
            /** @description The load of its machine over the last minute, in %. */
            cpu: number | null;
            /** @description The resident memory of its process in bytes. */
            memory: number | null;
        };
        /**
         * Node list
         * @description The nodes that a gateway can reach.
         */
        NodeList: {
            items: components["schemas"]["Node"][];
        };
        /**
         * Request rates
         * @description HTTP requests of all gateways, over ten seconds at most.
         */
        RequestRates: {
            /** @description Requests per second. */
            per_second: number;
            /** @description Responses with status 429 per second. */
            refused_per_second: number;
            /** @description Responses with a status of 500 or above per second. */
            failed_per_second: number;
            /** @description Requests that are in progress or queued now. */
            in_progress: number;
            /** @description The median duration in milliseconds, rounded up; null without requests. */
            p50_ms: number | null;
            /** @description 99 % of the requests took no longer, in milliseconds, rounded up. */
            p99_ms: number | null;
        };
        /**
         * Status rates
         * @description Orders that got each status per second, over the last ten seconds.
         */
        StatusRates: {
            PENDING: number;
            CONFIRMED: number;
            REJECTED: number;
            CANCELLED: number;
        };
        /**
         * Status counts
         * @description How many of the newest 1000 orders have each status.
         */
        StatusCounts: {
            PENDING: number;
            CONFIRMED: number;
            REJECTED: number;
            CANCELLED: number;
        };
        /**
         * Outbox state
         * @description Events that wait for the reply of products.
         */
        OutboxState: {
            /** @description Rows without a reply, counted up to 20,000. */
            pending: number;
            /** @description Rows that need a decision by an operator. */
            parked: number;
            /** @description Age of the oldest pending row; 0 without one. */
            oldest_seconds: number;
        };
        /**
         * Order activity
         * @description What happens to orders.
         */
        OrderActivity: {
            per_second: components["schemas"]["StatusRates"];
            newest: components["schemas"]["StatusCounts"];
            outbox: components["schemas"]["OutboxState"];
        };
        /**
         * Busy product
         * @description A product that orders have reserved in the last minute.
         */
        BusyProduct: {
            /**
             * Format: uuid
             * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
             */
            product_id: string;
            name: string;
            /** @description Units available for sale. */
            quantity: number;
            /** @description Units reserved in the last minute, or since 5,000 stock movements ago. */
            sold: number;
        };
        /**
         * Operations snapshot
         * @description The state of the whole shop at one moment. Parts that do not respond are null.
         */
        OperationsSnapshot: {
            /** Format: date-time */
            at: string;
            /** @description The nodes that the gateway can reach. */
            nodes: components["schemas"]["Node"][];
            /** @description Null until the second snapshot. */
            requests: components["schemas"]["RequestRates"] | null;
            orders: components["schemas"]["OrderActivity"] | null;
            /** @description The products of which most units were reserved in the last minute. */
            busiest: components["schemas"]["BusyProduct"][] | null;
        };
        /**
         * OpenAPI document
         * @description A document of the OpenAPI Specification.
         */
        OpenAPIDocument: {
            /** @description The version of the OpenAPI Specification. */
            openapi: string;
        };
    };
    responses: {
        /** @description MALFORMED_JSON, BAD_REQUEST */
        MalformedJsonOrBadRequest: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["MalformedJsonProblem"] | components["schemas"]["BadRequestProblem"];
            };
        };
        /** @description BODY_TOO_LARGE */
        BodyTooLarge: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["BodyTooLargeProblem"];
            };
        };
        /** @description UNSUPPORTED_MEDIA_TYPE */
        UnsupportedMediaType: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["UnsupportedMediaTypeProblem"];
            };
        };
        /** @description VALIDATION_ERROR */
        ValidationError: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["ValidationErrorProblem"];
            };
        };
        /** @description PRECONDITION_FAILED */
        PreconditionFailed: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["PreconditionFailedProblem"];
            };
        };
        /** @description TOO_MANY_REQUESTS */
        TooManyRequests: {
            headers: {
                "Retry-After": components["headers"]["Retry-After"];
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["TooManyRequestsProblem"];
            };
        };
        /** @description EMAIL_TAKEN */
        EmailTaken: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["EmailTakenProblem"];
            };
        };
        /** @description INTERNAL_ERROR */
        InternalError: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["InternalErrorProblem"];
            };
        };
        /** @description SERVICE_UNAVAILABLE */
        ServiceUnavailable: {
            headers: {
                "Retry-After": components["headers"]["Retry-After"];
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["ServiceUnavailableProblem"];
            };
        };
        /** @description INVALID_CREDENTIALS */
        InvalidCredentials: {
            headers: {
                "WWW-Authenticate": components["headers"]["WWW-Authenticate"];
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["InvalidCredentialsProblem"];
            };
        };
        /** @description INVALID_REFRESH_TOKEN */
        InvalidRefreshToken: {
            headers: {
                "WWW-Authenticate": components["headers"]["WWW-Authenticate"];
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["InvalidRefreshTokenProblem"];
            };
        };
        /** @description BAD_REQUEST */
        BadRequest: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["BadRequestProblem"];
            };
        };
        /** @description UNAUTHENTICATED */
        Unauthenticated: {
            headers: {
                "WWW-Authenticate": components["headers"]["WWW-Authenticate"];
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["UnauthenticatedProblem"];
            };
        };
        /** @description UNAUTHENTICATED, INVALID_CREDENTIALS */
        UnauthenticatedOrInvalidCredentials: {
            headers: {
                "WWW-Authenticate": components["headers"]["WWW-Authenticate"];
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["UnauthenticatedProblem"] | components["schemas"]["InvalidCredentialsProblem"];
            };
        };
        /** @description VALIDATION_ERROR, IDEMPOTENCY_KEY_REUSED */
        ValidationErrorOrIdempotencyKeyReused: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["ValidationErrorProblem"] | components["schemas"]["IdempotencyKeyReusedProblem"];
            };
        };
        /** @description IDEMPOTENCY_IN_FLIGHT */
        IdempotencyInFlight: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["IdempotencyInFlightProblem"];
            };
        };
        /** @description PRODUCT_NOT_FOUND */
        ProductNotFound: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["ProductNotFoundProblem"];
            };
        };
        /** @description FORBIDDEN */
        Forbidden: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["ForbiddenProblem"];
            };
        };
        /** @description INSUFFICIENT_STOCK, IDEMPOTENCY_IN_FLIGHT */
        InsufficientStockOrIdempotencyInFlight: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["InsufficientStockProblem"] | components["schemas"]["IdempotencyInFlightProblem"];
            };
        };
        /** @description ORDER_NOT_FOUND */
        OrderNotFound: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["OrderNotFoundProblem"];
            };
        };
        /** @description ORDER_NOT_CANCELLABLE, IDEMPOTENCY_IN_FLIGHT */
        OrderNotCancellableOrIdempotencyInFlight: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["OrderNotCancellableProblem"] | components["schemas"]["IdempotencyInFlightProblem"];
            };
        };
        /** @description USER_NOT_FOUND */
        UserNotFound: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["UserNotFoundProblem"];
            };
        };
        /** @description LAST_ADMIN */
        LastAdmin: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["LastAdminProblem"];
            };
        };
        /** @description IDEMPOTENCY_IN_FLIGHT, NOT_PARKED */
        IdempotencyInFlightOrNotParked: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["IdempotencyInFlightProblem"] | components["schemas"]["NotParkedProblem"];
            };
        };
        /** @description NOT_FOUND */
        NotFound: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["NotFoundProblem"];
            };
        };
    };
    parameters: never;
    requestBodies: never;
    headers: {
        /**
         * @description Seconds to wait before retrying.
         * @example 2
         */
        "Retry-After": number;
        /**
         * @description The path of the new resource.
         * @example /products/017f22e2-79b0-7cc3-98c4-dc0c0c07398f
         */
        Location: string;
        /**
         * @description The required authentication scheme (RFC 6750).
         * @example Bearer realm="shop"
         */
        "WWW-Authenticate": string;
        /**
         * @description The version of the resource, for `If-Match` and `If-None-Match`.
         * @example "3-17"
         */
        ETag: string;
        /**
         * @description `true` if the key was used before: this repeats the first response. Otherwise absent.
         * @example true
         */
        "Idempotent-Replayed": string;
        /**
         * @description The next page, `rel="next"` (RFC 8288); absent on the last one.
         * @example </products?cursor=WyJwcm9kdWN0cyJd>; rel="next"
         */
        Link: string;
    };
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    register: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "email": "ada@example.com",
                 *       "password": "correct horse"
                 *     }
                 */
                "application/json": components["schemas"]["Registration"];
            };
        };
        responses: {
            /** @description Created */
            201: {
                headers: {
                    Location: components["headers"]["Location"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "email": "ada@example.com",
                     *       "role": "user",
                     *       "created_at": "2026-11-26T14:22:19.871Z"
                     *     }
                     */
                    "application/json": components["schemas"]["User"];
                };
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            409: components["responses"]["EmailTaken"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationError"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    logIn: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "email": "ada@example.com",
                 *       "password": "correct horse"
                 *     }
                 */
                "application/json": components["schemas"]["Credentials"];
                "application/x-www-form-urlencoded": components["schemas"]["PasswordGrant"] | components["schemas"]["RefreshGrant"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "access_token": "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0.eyJzdWIiOiIwMTdmMjJlMiJ9.c2lnbmF0dXJl",
                     *       "token_type": "bearer",
                     *       "expires_in": 900,
                     *       "refresh_token": "5LnHxV3eYw0m6Zr9tQ2uBfKcJd8sPa1gNi7oTvXyEhM"
                     *     }
                     */
                    "application/json": components["schemas"]["TokenPair"];
                };
            };
            /** @description MALFORMED_JSON, BAD_REQUEST */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["MalformedJsonProblem"] | components["schemas"]["BadRequestProblem"];
                    /**
                     * @example {
                     *       "error": "invalid_grant",
                     *       "error_description": "the e-mail address or the password is wrong"
                     *     }
                     */
                    "application/json": components["schemas"]["OAuthError"];
                };
            };
            401: components["responses"]["InvalidCredentials"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationError"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    refreshTokens: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "refresh_token": "5LnHxV3eYw0m6Zr9tQ2uBfKcJd8sPa1gNi7oTvXyEhM"
                 *     }
                 */
                "application/json": components["schemas"]["RefreshToken"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "access_token": "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0.eyJzdWIiOiIwMTdmMjJlMiJ9.c2lnbmF0dXJl",
                     *       "token_type": "bearer",
                     *       "expires_in": 900,
                     *       "refresh_token": "5LnHxV3eYw0m6Zr9tQ2uBfKcJd8sPa1gNi7oTvXyEhM"
                     *     }
                     */
                    "application/json": components["schemas"]["TokenPair"];
                };
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            401: components["responses"]["InvalidRefreshToken"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationError"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    logOut: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "refresh_token": "5LnHxV3eYw0m6Zr9tQ2uBfKcJd8sPa1gNi7oTvXyEhM"
                 *     }
                 */
                "application/json": components["schemas"]["RefreshToken"];
            };
        };
        responses: {
            /** @description No Content */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationError"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    getMe: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "email": "ada@example.com",
                     *       "role": "user",
                     *       "created_at": "2026-11-26T14:22:19.871Z"
                     *     }
                     */
                    "application/json": components["schemas"]["User"];
                };
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    changePassword: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "current_password": "correct horse",
                 *       "new_password": "battery staple"
                 *     }
                 */
                "application/json": components["schemas"]["PasswordChange"];
            };
        };
        responses: {
            /** @description No Content */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            401: components["responses"]["UnauthenticatedOrInvalidCredentials"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationError"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    getPublicKeys: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "keys": [
                     *         {
                     *           "kty": "RSA",
                     *           "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1Wl",
                     *           "e": "AQAB",
                     *           "kid": "k1",
                     *           "alg": "RS256",
                     *           "use": "sig"
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["KeySet"];
                };
            };
            400: components["responses"]["BadRequest"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    listProducts: {
        parameters: {
            query?: {
                /** @description Text in the first 300 characters of name and description. The case of A to Z does not matter. */
                q?: string;
                /** @description Only products of this category. */
                category?: string;
                /** @description Only products of this seller. */
                seller_id?: string;
                /** @description Only products of at least this price, in the major unit of the currency. */
                min_price?: number;
                /** @description Only products of at most this price, in the major unit of the currency. */
                max_price?: number;
                /** @description `true`: only products in stock; `false`: only those that are sold out. */
                in_stock?: boolean;
                /** @description With a leading `-` descending. By default `created_at`, the oldest first. */
                sort?: "name" | "-name" | "price" | "-price" | "created_at" | "-created_at";
                /** @description Maximum number of items in the page. */
                limit?: number;
                /** @description Opaque: the `next_cursor` of the previous page. */
                cursor?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    Link: components["headers"]["Link"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "items": [
                     *         {
                     *           "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "name": "Desk lamp",
                     *           "price": 49.9,
                     *           "quantity": 50,
                     *           "description": null,
                     *           "category": "lamps",
                     *           "sku": null,
                     *           "seller_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "created_at": "2026-11-26T14:22:21.366Z",
                     *           "updated_at": "2026-11-26T14:22:21.366Z"
                     *         }
                     *       ],
                     *       "next_cursor": "WyJleGFtcGxlIiwxLDFd"
                     *     }
                     */
                    "application/json": components["schemas"]["ProductPage"];
                };
            };
            400: components["responses"]["BadRequest"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    createProduct: {
        parameters: {
            query?: never;
            header?: {
                /** @description 1 to 255 visible ASCII characters of your choice. After any failure, repeat the request with the same key: it takes effect once. */
                "Idempotency-Key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "name": "Desk lamp",
                 *       "price": 49.9,
                 *       "quantity": 50,
                 *       "category": "lamps"
                 *     }
                 */
                "application/json": components["schemas"]["NewProduct"];
            };
        };
        responses: {
            /** @description Created */
            201: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    Location: components["headers"]["Location"];
                    "Idempotent-Replayed": components["headers"]["Idempotent-Replayed"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "name": "Desk lamp",
                     *       "price": 49.9,
                     *       "quantity": 50,
                     *       "description": null,
                     *       "category": "lamps",
                     *       "sku": null,
                     *       "seller_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "created_at": "2026-11-26T14:22:21.366Z",
                     *       "updated_at": "2026-11-26T14:22:21.366Z"
                     *     }
                     */
                    "application/json": components["schemas"]["Product"];
                };
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            401: components["responses"]["Unauthenticated"];
            409: components["responses"]["IdempotencyInFlight"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationErrorOrIdempotencyKeyReused"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    getProduct: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: the response is 304 if it is still current. */
                "If-None-Match"?: string;
            };
            path: {
                /**
                 * @description The product's id.
                 * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
                 */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "name": "Desk lamp",
                     *       "price": 49.9,
                     *       "quantity": 50,
                     *       "description": null,
                     *       "category": "lamps",
                     *       "sku": null,
                     *       "seller_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "created_at": "2026-11-26T14:22:21.366Z",
                     *       "updated_at": "2026-11-26T14:22:21.366Z"
                     *     }
                     */
                    "application/json": components["schemas"]["Product"];
                };
            };
            /** @description Not Modified */
            304: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["BadRequest"];
            404: components["responses"]["ProductNotFound"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    archiveProduct: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: the change is made only if the product has not been edited since. Sales don't count as edits. */
                "If-Match"?: string;
            };
            path: {
                /**
                 * @description The product's id.
                 * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
                 */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description No Content */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            404: components["responses"]["ProductNotFound"];
            412: components["responses"]["PreconditionFailed"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    updateProduct: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: the change is made only if the product has not been edited since. Sales don't count as edits. */
                "If-Match"?: string;
            };
            path: {
                /**
                 * @description The product's id.
                 * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
                 */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "price": 44.9,
                 *       "description": "With a dimmer"
                 *     }
                 */
                "application/json": components["schemas"]["ProductChanges"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "name": "Desk lamp",
                     *       "price": 44.9,
                     *       "quantity": 50,
                     *       "description": "With a dimmer",
                     *       "category": "lamps",
                     *       "sku": null,
                     *       "seller_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "created_at": "2026-11-26T14:22:21.366Z",
                     *       "updated_at": "2026-11-26T15:00:00.000Z"
                     *     }
                     */
                    "application/json": components["schemas"]["Product"];
                };
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            404: components["responses"]["ProductNotFound"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationError"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    listStockMovements: {
        parameters: {
            query?: {
                /** @description Maximum number of items in the page. */
                limit?: number;
                /** @description Opaque: the `next_cursor` of the previous page. */
                cursor?: string;
            };
            header?: never;
            path: {
                /**
                 * @description The product's id.
                 * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
                 */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    Link: components["headers"]["Link"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "items": [
                     *         {
                     *           "id": 2,
                     *           "delta": -3,
                     *           "balance": 47,
                     *           "reason": "order 017f22e2-79b0-7cc3-98c4-dc0c0c07398f reserved",
                     *           "order_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "created_at": "2026-11-26T14:22:22.463Z"
                     *         },
                     *         {
                     *           "id": 1,
                     *           "delta": 50,
                     *           "balance": 50,
                     *           "reason": "initial stock",
                     *           "order_id": null,
                     *           "created_at": "2026-11-26T14:22:21.366Z"
                     *         }
                     *       ],
                     *       "next_cursor": null
                     *     }
                     */
                    "application/json": components["schemas"]["MovementPage"];
                };
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            404: components["responses"]["ProductNotFound"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    adjustStock: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: the change is made only if it is still current. A sale makes it stale. */
                "If-Match"?: string;
                /** @description 1 to 255 visible ASCII characters of your choice. After any failure, repeat the request with the same key: it takes effect once. */
                "Idempotency-Key"?: string;
            };
            path: {
                /**
                 * @description The product's id.
                 * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
                 */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "delta": 10,
                 *       "reason": "delivery"
                 *     }
                 */
                "application/json": components["schemas"]["StockAdjustment"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    "Idempotent-Replayed": components["headers"]["Idempotent-Replayed"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "name": "Desk lamp",
                     *       "price": 49.9,
                     *       "quantity": 60,
                     *       "description": null,
                     *       "category": "lamps",
                     *       "sku": null,
                     *       "seller_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "created_at": "2026-11-26T14:22:21.366Z",
                     *       "updated_at": "2026-11-26T15:00:00.000Z"
                     *     }
                     */
                    "application/json": components["schemas"]["Product"];
                };
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            404: components["responses"]["ProductNotFound"];
            409: components["responses"]["InsufficientStockOrIdempotencyInFlight"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationErrorOrIdempotencyKeyReused"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    listOrders: {
        parameters: {
            query?: {
                /** @description PENDING until its stock is reserved, then CONFIRMED; REJECTED if there is not enough stock; CANCELLED by its buyer or an admin. */
                status?: components["schemas"]["OrderStatus"];
                /** @description For admins: the orders of this user. */
                user_id?: string;
                /** @description For admins: the orders of everyone. */
                all?: boolean;
                /** @description Maximum number of items in the page. */
                limit?: number;
                /** @description Opaque: the `next_cursor` of the previous page. */
                cursor?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    Link: components["headers"]["Link"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "items": [
                     *         {
                     *           "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "user_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "status": "CONFIRMED",
                     *           "total_price": 149.7,
                     *           "items": [
                     *             {
                     *               "product_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *               "name": "Desk lamp",
                     *               "unit_price": 49.9,
                     *               "quantity": 3
                     *             }
                     *           ],
                     *           "reason": null,
                     *           "history": [
                     *             {
                     *               "status": "PENDING",
                     *               "at": "2026-11-26T14:22:22.421Z"
                     *             },
                     *             {
                     *               "status": "CONFIRMED",
                     *               "at": "2026-11-26T14:22:22.463Z"
                     *             }
                     *           ],
                     *           "created_at": "2026-11-26T14:22:22.421Z",
                     *           "updated_at": "2026-11-26T14:22:22.463Z"
                     *         }
                     *       ],
                     *       "next_cursor": "WyJleGFtcGxlIiwxLDFd"
                     *     }
                     */
                    "application/json": components["schemas"]["OrderPage"];
                };
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    createOrder: {
        parameters: {
            query?: never;
            header?: {
                /** @description 1 to 255 visible ASCII characters of your choice. After any failure, repeat the request with the same key: it takes effect once. */
                "Idempotency-Key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "items": [
                 *         {
                 *           "product_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                 *           "quantity": 3
                 *         }
                 *       ]
                 *     }
                 */
                "application/json": components["schemas"]["NewOrder"];
            };
        };
        responses: {
            /** @description Created */
            201: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    Location: components["headers"]["Location"];
                    "Idempotent-Replayed": components["headers"]["Idempotent-Replayed"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "user_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "status": "PENDING",
                     *       "total_price": 149.7,
                     *       "items": [
                     *         {
                     *           "product_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "name": "Desk lamp",
                     *           "unit_price": 49.9,
                     *           "quantity": 3
                     *         }
                     *       ],
                     *       "reason": null,
                     *       "history": [
                     *         {
                     *           "status": "PENDING",
                     *           "at": "2026-11-26T14:22:22.421Z"
                     *         }
                     *       ],
                     *       "created_at": "2026-11-26T14:22:22.421Z",
                     *       "updated_at": "2026-11-26T14:22:22.421Z"
                     *     }
                     */
                    "application/json": components["schemas"]["Order"];
                };
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            401: components["responses"]["Unauthenticated"];
            404: components["responses"]["ProductNotFound"];
            409: components["responses"]["InsufficientStockOrIdempotencyInFlight"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationErrorOrIdempotencyKeyReused"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    getOrder: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: the response is 304 if it is still current. */
                "If-None-Match"?: string;
            };
            path: {
                /**
                 * @description The order's id.
                 * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
                 */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "user_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "status": "CONFIRMED",
                     *       "total_price": 149.7,
                     *       "items": [
                     *         {
                     *           "product_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "name": "Desk lamp",
                     *           "unit_price": 49.9,
                     *           "quantity": 3
                     *         }
                     *       ],
                     *       "reason": null,
                     *       "history": [
                     *         {
                     *           "status": "PENDING",
                     *           "at": "2026-11-26T14:22:22.421Z"
                     *         },
                     *         {
                     *           "status": "CONFIRMED",
                     *           "at": "2026-11-26T14:22:22.463Z"
                     *         }
                     *       ],
                     *       "created_at": "2026-11-26T14:22:22.421Z",
                     *       "updated_at": "2026-11-26T14:22:22.463Z"
                     *     }
                     */
                    "application/json": components["schemas"]["Order"];
                };
            };
            /** @description Not Modified */
            304: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            404: components["responses"]["OrderNotFound"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    followOrder: {
        parameters: {
            query?: never;
            header?: {
                /** @description The id of the last event received: the stream continues after it. */
                "Last-Event-ID"?: string;
            };
            path: {
                /**
                 * @description The order's id.
                 * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
                 */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example retry: 2000
                     *
                     *     id: 1
                     *     event: status
                     *     data: {"status":"PENDING","at":"2026-11-26T14:22:22.421Z","reason":null}
                     *
                     *     id: 2
                     *     event: status
                     *     data: {"status":"CONFIRMED","at":"2026-11-26T14:22:22.463Z","reason":null}
                     *
                     *     id: 3
                     *     event: status
                     *     data: {"status":"CANCELLED","at":"2026-11-26T14:25:07.310Z","reason":null}
                     */
                    "text/event-stream": string;
                };
            };
            /** @description No Content */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            404: components["responses"]["OrderNotFound"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    cancelOrder: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: the change is made only if it is still current. */
                "If-Match"?: string;
                /** @description 1 to 255 visible ASCII characters of your choice. After any failure, repeat the request with the same key: it takes effect once. */
                "Idempotency-Key"?: string;
            };
            path: {
                /**
                 * @description The order's id.
                 * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
                 */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                /** @example {} */
                "application/json": components["schemas"]["EmptyBody"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    "Idempotent-Replayed": components["headers"]["Idempotent-Replayed"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "user_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "status": "CANCELLED",
                     *       "total_price": 149.7,
                     *       "items": [
                     *         {
                     *           "product_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "name": "Desk lamp",
                     *           "unit_price": 49.9,
                     *           "quantity": 3
                     *         }
                     *       ],
                     *       "reason": null,
                     *       "history": [
                     *         {
                     *           "status": "PENDING",
                     *           "at": "2026-11-26T14:22:22.421Z"
                     *         },
                     *         {
                     *           "status": "CONFIRMED",
                     *           "at": "2026-11-26T14:22:22.463Z"
                     *         },
                     *         {
                     *           "status": "CANCELLED",
                     *           "at": "2026-11-26T14:25:07.310Z"
                     *         }
                     *       ],
                     *       "created_at": "2026-11-26T14:22:22.421Z",
                     *       "updated_at": "2026-11-26T14:25:07.310Z"
                     *     }
                     */
                    "application/json": components["schemas"]["Order"];
                };
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            401: components["responses"]["Unauthenticated"];
            404: components["responses"]["OrderNotFound"];
            409: components["responses"]["OrderNotCancellableOrIdempotencyInFlight"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationErrorOrIdempotencyKeyReused"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    findAccount: {
        parameters: {
            query: {
                /** @description The whole address, in upper or lower case. */
                email: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "email": "ada@example.com",
                     *       "role": "user",
                     *       "created_at": "2026-11-26T14:22:19.871Z",
                     *       "disabled": false
                     *     }
                     */
                    "application/json": components["schemas"]["Account"];
                };
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            404: components["responses"]["UserNotFound"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    updateAccount: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description The user's id.
                 * @example 017f22e2-79b0-7cc3-98c4-dc0c0c07398f
                 */
                id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "disabled": false
                 *     }
                 */
                "application/json": components["schemas"]["AccountChanges"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *       "email": "ada@example.com",
                     *       "role": "user",
                     *       "created_at": "2026-11-26T14:22:19.871Z",
                     *       "disabled": false
                     *     }
                     */
                    "application/json": components["schemas"]["Account"];
                };
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            404: components["responses"]["UserNotFound"];
            409: components["responses"]["LastAdmin"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationError"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    listAuditLog: {
        parameters: {
            query?: {
                /** @description A user's id, or `system`. */
                actor?: string | "system";
                /** @description The id of a user, product, order, outbox row or key. */
                subject?: string;
                /** @description Only entries of this action. */
                action?: "admin.created" | "user.registered" | "user.disabled" | "user.enabled" | "user.promoted" | "user.demoted" | "login.succeeded" | "login.failed" | "logout" | "sessions.omitted" | "password.changed" | "password.refused" | "failures.omitted" | "refresh.reused" | "key.created" | "key.deleted" | "product.updated" | "product.archived" | "stock.adjusted" | "order.cancelled" | "outbox.replayed" | "order.repaired";
                /** @description Maximum number of items in the page. */
                limit?: number;
                /** @description Opaque: the `next_cursor` of the previous page. */
                cursor?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    Link: components["headers"]["Link"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "items": [
                     *         {
                     *           "id": 7,
                     *           "at": "2026-11-26T15:00:00.000Z",
                     *           "actor": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "action": "user.disabled",
                     *           "subject": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "address": "203.0.113.7",
                     *           "request_id": "4d52694d-d4b2-4054-83c3-b8f5e731209c"
                     *         }
                     *       ],
                     *       "next_cursor": "WyJleGFtcGxlIiwxLDFd"
                     *     }
                     */
                    "application/json": components["schemas"]["AuditEntryPage"];
                };
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    listOutboxRows: {
        parameters: {
            query?: {
                /** @description Only rows in these states, comma-separated. */
                state?: string;
                /** @description Maximum number of items in the page. */
                limit?: number;
                /** @description Opaque: the `next_cursor` of the previous page. */
                cursor?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    Link: components["headers"]["Link"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "items": [
                     *         {
                     *           "id": 1,
                     *           "order_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "event": "order.created",
                     *           "state": "PARKED",
                     *           "attempts": 10,
                     *           "next_attempt_at": "2026-11-26T15:00:00.000Z",
                     *           "last_error": "lines[0].quantity must be >= 1",
                     *           "created_at": "2026-11-26T14:22:22.421Z"
                     *         }
                     *       ],
                     *       "next_cursor": null
                     *     }
                     */
                    "application/json": components["schemas"]["OutboxRowPage"];
                };
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    replayOutboxRow: {
        parameters: {
            query?: never;
            header?: {
                /** @description 1 to 255 visible ASCII characters of your choice. After any failure, repeat the request with the same key: it takes effect once. */
                "Idempotency-Key"?: string;
            };
            path: {
                /**
                 * @description The row's id.
                 * @example 1
                 */
                id: number;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                /** @example {} */
                "application/json": components["schemas"]["EmptyBody"];
            };
        };
        responses: {
            /** @description Accepted */
            202: {
                headers: {
                    "Idempotent-Replayed": components["headers"]["Idempotent-Replayed"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            404: components["responses"]["NotFound"];
            409: components["responses"]["IdempotencyInFlightOrNotParked"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationErrorOrIdempotencyKeyReused"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    checkConsistency: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "ok": true,
                     *       "checked_at": "2026-11-26T15:00:00.000Z",
                     *       "in_flight": 2,
                     *       "oldest_in_flight": 0.4,
                     *       "parked": 0,
                     *       "checks": [
                     *         {
                     *           "name": "the total is the sum of its lines",
                     *           "ok": true,
                     *           "violations": 0,
                     *           "sample": []
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["ConsistencyReport"];
                };
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    repairOrders: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "apply": false
                 *     }
                 */
                "application/json": components["schemas"]["RepairRequest"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "applied": false,
                     *       "repairs": [
                     *         {
                     *           "order_id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                     *           "what": "CONFIRMED, its reservation none",
                     *           "action": "order.created"
                     *         }
                     *       ],
                     *       "decisions": [],
                     *       "undecided": 0,
                     *       "more": false
                     *     }
                     */
                    "application/json": components["schemas"]["RepairReport"];
                };
            };
            400: components["responses"]["MalformedJsonOrBadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            412: components["responses"]["PreconditionFailed"];
            413: components["responses"]["BodyTooLarge"];
            415: components["responses"]["UnsupportedMediaType"];
            422: components["responses"]["ValidationError"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    getAuthorizationServer: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "issuer": "https://shop.example.com",
                     *       "token_endpoint": "https://shop.example.com/token",
                     *       "jwks_uri": "https://shop.example.com/.well-known/jwks.json",
                     *       "response_types_supported": [],
                     *       "grant_types_supported": [
                     *         "password",
                     *         "refresh_token"
                     *       ],
                     *       "token_endpoint_auth_methods_supported": [
                     *         "none"
                     *       ],
                     *       "service_documentation": "https://shop.example.com/docs"
                     *     }
                     */
                    "application/json": components["schemas"]["AuthorizationServer"];
                };
            };
            400: components["responses"]["BadRequest"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    getLiveness: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "ok",
                     *       "checks": []
                     *     }
                     */
                    "application/json": components["schemas"]["Health"];
                };
            };
            400: components["responses"]["BadRequest"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    getReadiness: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "ok",
                     *       "checks": [
                     *         {
                     *           "name": "gateway",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "transporter",
                     *           "ok": true
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["Health"];
                };
            };
            400: components["responses"]["BadRequest"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            /** @description Service Unavailable */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "unavailable",
                     *       "checks": [
                     *         {
                     *           "name": "gateway",
                     *           "ok": false,
                     *           "detail": "starting or stopping"
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["Health"];
                };
            };
        };
    };
    getHealth: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "ok",
                     *       "checks": [
                     *         {
                     *           "name": "gateway",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "transporter",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "users",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "users database",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "products",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "products database",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "orders",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "orders database",
                     *           "ok": true
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["Health"];
                };
            };
            400: components["responses"]["BadRequest"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            /** @description Service Unavailable */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "unavailable",
                     *       "checks": [
                     *         {
                     *           "name": "gateway",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "transporter",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "users",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "users database",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "products",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "products database",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "orders",
                     *           "ok": true
                     *         },
                     *         {
                     *           "name": "orders database",
                     *           "ok": false,
                     *           "detail": "unknown"
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["Health"];
                };
            };
        };
    };
    listNodes: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "items": [
                     *         {
                     *           "id": "orders-1",
                     *           "services": [
                     *             "orders"
                     *           ],
                     *           "version": "0.3.0",
                     *           "uptime": 3600,
                     *           "cpu": 12.5,
                     *           "memory": 104857600
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["NodeList"];
                };
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    watchOperations: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example retry: 2000
                     *
                     *     event: snapshot
                     *     data: {"at":"2026-11-26T15:00:00.000Z","nodes":[{"id":"orders-1","services":["orders"],"version":"0.3.0","uptime":3600,"cpu":12.5,"memory":104857600}],"requests":{"per_second":120.5,"refused_per_second":0,"failed_per_second":0,"in_progress":3,"p50_ms":3,"p99_ms":20},"orders":{"per_second":{"PENDING":12.1,"CONFIRMED":12,"REJECTED":0.1,"CANCELLED":0},"newest":{"PENDING":1,"CONFIRMED":969,"REJECTED":10,"CANCELLED":20},"outbox":{"pending":1,"parked":0,"oldest_seconds":0.01}},"busiest":[{"product_id":"017f22e2-79b0-7cc3-98c4-dc0c0c07398f","name":"Desk lamp","quantity":47,"sold":3}]}
                     */
                    "text/event-stream": string;
                };
            };
            400: components["responses"]["BadRequest"];
            401: components["responses"]["Unauthenticated"];
            403: components["responses"]["Forbidden"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    explainProblem: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /**
                 * @description Which problem it is. Codes are stable, and `GET /problems/{code}` explains each.
                 * @example MALFORMED_JSON
                 */
                code: components["schemas"]["ErrorCode"];
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/html": string;
                };
            };
            400: components["responses"]["BadRequest"];
            404: components["responses"]["NotFound"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    getOpenApiDocument: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: the response is 304 if it is still current. */
                "If-None-Match"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "openapi": "3.1.0"
                     *     }
                     */
                    "application/json": components["schemas"]["OpenAPIDocument"];
                };
            };
            /** @description Not Modified */
            304: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["BadRequest"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    getDocumentation: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: the response is 304 if it is still current. */
                "If-None-Match"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content: {
                    "text/html": string;
                };
            };
            /** @description Not Modified */
            304: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["BadRequest"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
    getDocumentationFile: {
        parameters: {
            query?: never;
            header?: {
                /** @description An ETag: the response is 304 if it is still current. */
                "If-None-Match"?: string;
            };
            path: {
                /**
                 * @description The name of the file.
                 * @example swagger-ui.css
                 */
                file: "swagger-ui.css" | "docs.css" | "swagger-ui-bundle.js" | "start.js" | "favicon-32x32.png";
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content: {
                    "text/css; charset=utf-8": string;
                    "text/javascript; charset=utf-8": string;
                    "image/png": string;
                };
            };
            /** @description Not Modified */
            304: {
                headers: {
                    ETag: components["headers"]["ETag"];
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["BadRequest"];
            404: components["responses"]["NotFound"];
            429: components["responses"]["TooManyRequests"];
            500: components["responses"]["InternalError"];
            503: components["responses"]["ServiceUnavailable"];
        };
    };
}
