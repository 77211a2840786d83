// The connection to the server: started, watched and restarted here; everything else is the server's.

import { homedir } from "os";
import {
  commands,
  Disposable,
  EventEmitter,
  ExtensionContext,
  InlineCompletionTriggerKind,
  LogOutputChannel,
  TextDocument,
  window,
} from "vscode";
import type { CloseHandlerResult, LanguageClient, LanguageClientOptions } from "vscode-languageclient/node";
import { ENVIRONMENT } from "./run";
import { findServer } from "./server";
import { disabledLanguages, enabled, section } from "./settings";
import { Status } from "./status";

/** The documents that are completed: files, where the workspace is, and those without a name yet. */
export const SELECTOR = [{ scheme: "file" }, { scheme: "untitled" }];
const REST_MS = 100; // the cursor rests: the server may compute the prompt there before the next key

export class Connection implements Disposable {
  /** The server's full path, undefined while there is none. */
  command: string | undefined;
  /** What each request cost, with the setting `fimble.trace`. */
  readonly traces = new EventEmitter<object>();
  private client: LanguageClient | undefined;
  private resting: NodeJS.Timeout | undefined;
  private changing: Promise<void> = Promise.resolve();
  private again = false; // VS Code asks because the server said so, not the user; it knows no such request

  constructor(
    private readonly context: ExtensionContext,
    private readonly log: LogOutputChannel,
    private readonly onStatus: (status: Status) => void,
  ) {}

  /** Ends the server, if there is one, and starts the one that is found now. */
  restart(): Promise<void> {
    this.changing = this.changing.then(() => this.change());
    return this.changing;
  }

  /** Runs one of the server's commands; undefined while it does not run. */
  async execute(command: string, argument?: object): Promise<unknown> {
    const params = { command, arguments: argument ? [argument] : [] };
    return this.client?.isRunning() ? this.client.sendRequest("workspace/executeCommand", params) : undefined;
  }

  /** Where the cursor is, as the server's commands take it; undefined in a document that is not the server's. */
  place(): { textDocument: { uri: string; version: number }; position: object } | undefined {
    const editor = window.activeTextEditor;
    if (!editor || !this.serves(editor.document)) {
      return undefined;
    }
    const { line, character } = editor.selection.active;
    const uri = this.client!.code2ProtocolConverter.asUri(editor.document.uri);
    return { textDocument: { uri, version: editor.document.version }, position: { line, character } };
  }

  /** The cursor has moved: tells the server once it rests. */
  moved(): void {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      const place = this.place();
      if (place) {
        void this.client?.sendNotification("fimble/cursor", place);
      }
    }, REST_MS);
  }

  dispose(): void {
    clearTimeout(this.resting);
    this.traces.dispose();
  }

  async stop(): Promise<void> {
    await this.changing;
    await this.client?.dispose();
  }

  private serves(document: TextDocument): boolean {
    const schemes = SELECTOR.map(({ scheme }) => scheme);
    const on = enabled(document) && !disabledLanguages(document).includes(document.languageId);
    return on && this.client?.isRunning() === true && schemes.includes(document.uri.scheme);
  }

  private async change(): Promise<void> {
    const old = this.client;
    this.client = undefined;
    await old?.dispose().catch((error) => this.log.warn("The server did not end as asked.", error));
    this.onStatus({ state: "starting", message: "" });
    try {
      this.command = findServer(this.context);
    } catch (error) {
      this.command = undefined;
      return this.fail((error as Error).message);
    }
    if (!this.command) {
      const message = "No fimble command in the workspace's environment, on the PATH or in the extension's folder.";
      return this.onStatus({ state: "missing", message });
    }
    this.log.info(`starting ${this.command}`);
    this.client = await this.create(this.command);
    await this.client.start().catch((error) => this.fail(`The server ${this.command} did not start: ${error.message ?? error}`));
  }

  private async create(command: string): Promise<LanguageClient> {
    // Read only now: it is most of the extension, and VS Code is still starting when this is activated.
    const { CloseAction, LanguageClient, RevealOutputChannelOn } = await import("vscode-languageclient/node");
    const options: LanguageClientOptions = {
      documentSelector: SELECTOR,
      outputChannel: this.log,
      revealOutputChannelOn: RevealOutputChannelOn.Never, // the status bar says it; the log can be opened there
      initializationFailedHandler: () => false,
      errorHandler: {
        error: (error, message, count) => client.createDefaultErrorHandler().error(error, message, count),
        closed: async () => {
          const result = await deaths.closed();
          this.closed(result, result.action === CloseAction.Restart);
          return { ...result, handled: true };
        },
      },
      middleware: {
        workspace: { configuration: ({ items }) => items.map(() => section(this.context)) },
        provideInlineCompletionItems: (document, position, context, token, next) => {
          const triggerKind = this.again ? InlineCompletionTriggerKind.Automatic : context.triggerKind;
          this.again = false;
          return this.serves(document) ? next(document, position, { ...context, triggerKind }, token) : undefined;
        },
      },
    };
    // In a folder of the workspace Python would import its modules.
    const executable = { command, options: { cwd: homedir(), env: ENVIRONMENT } };
    const client = new LanguageClient("fimble", "fimble", executable, options);
    const deaths = client.createDefaultErrorHandler();
    client.registerFeature({
      fillClientCapabilities: (capabilities) => {
        capabilities.experimental = { ...(capabilities.experimental as object), fimble: { status: true } };
      },
      initialize: () => {},
      getState: () => ({ kind: "static" }),
      clear: () => {},
    });
    client.onNotification("fimble/status", (status: Status) => this.onStatus(status));
    client.onNotification("fimble/refresh", () => {
      this.again = this.place() !== undefined;
      if (this.again) {
        void commands.executeCommand("editor.action.inlineSuggest.trigger");
      }
    });
    client.onNotification("fimble/trace", ({ request: _, text: __, ...cost }) => {
      this.traces.fire(cost);
      this.log.info("trace", JSON.stringify(cost));
    });
    return client;
  }

  private closed({ message }: CloseHandlerResult, restarts: boolean): void {
    const ended = "The server ended unexpectedly";
    if (restarts) {
      this.onStatus({ state: "starting", message: ended });
      void this.tell(`${ended}; it is started again.`);
    } else {
      this.fail(message ?? `${ended}.`);
    }
  }

  private fail(message: string): void {
    this.log.error(message);
    this.onStatus({ state: "error", message });
    void this.tell(message);
  }

  private async tell(message: string): Promise<void> {
    const choice = await window.showWarningMessage(`fimble: ${message}`, "Restart", "Show the log");
    if (choice === "Restart") {
      await this.restart();
    } else if (choice) {
      this.log.show();
    }
  }
}
