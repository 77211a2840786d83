// Programs that end by themselves: what they say, shown or logged.

import { spawn } from "child_process";
import { homedir } from "os";
import { CancellationToken } from "vscode";

/** The environment without what would have Python import modules of the workspace. */
export const ENVIRONMENT = { ...process.env, PYTHONPATH: undefined, PYTHONHOME: undefined, PYTHONSTARTUP: undefined };

/** Runs a program outside the workspace. Resolves to its exit status; rejects if it can't be started. */
export function run(
  command: string,
  args: string[],
  onText: (text: string) => void,
  cancelled?: CancellationToken,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const env = { ...ENVIRONMENT, COLUMNS: "100" };
    const child = spawn(command, args, { cwd: homedir(), env, stdio: ["ignore", "pipe", "pipe"] });
    const watch = cancelled?.onCancellationRequested(() => child.kill());
    child.stdout.setEncoding("utf-8").on("data", onText);
    child.stderr.setEncoding("utf-8").on("data", onText);
    child.on("error", reject);
    child.on("close", (status) => {
      watch?.dispose();
      resolve(status ?? 1);
    });
  });
}
