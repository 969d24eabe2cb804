import { setPriority } from "node:os";
import bcrypt from "bcryptjs";

// On Linux a priority is a thread's own: under load a login waits for everybody else, and not they for it.
if (process.platform === "linux") setPriority(13);

/** Runs in a worker thread: one hash takes up to half a second of CPU, which no event loop can spare. */
export const hash = ({ password, cost }: { password: string; cost: number }): Promise<string> => bcrypt.hash(password, cost);

export const compare = ({ password, hashed }: { password: string; hashed: string }): Promise<boolean> => bcrypt.compare(password, hashed);
