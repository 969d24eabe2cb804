/** The admin of every shop that a test or a run starts. */
export const ADMIN = { email: "admin@shop.test", password: "an admin's password" };
