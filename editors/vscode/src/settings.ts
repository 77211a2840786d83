// What the user has set, and nothing else: what they have not set is left to the server and to their own settings file.

import {
  ConfigurationScope,
  ConfigurationTarget,
  ExtensionContext,
  TextDocument,
  workspace,
  WorkspaceConfiguration,
  WorkspaceFolder,
} from "vscode";

const OURS = ["command", "installFrom"]; // for this extension; the server does not know them
const WINDOW = null; // of the window itself, whatever its folders say

/** The section `fimble` as the server is to have it. Only declared settings pass: a folder can't slip in others. */
export function section(context: ExtensionContext): Record<string, unknown> {
  const declared: object = context.extension.packageJSON.contributes.configuration.properties;
  const names = Object.keys(declared).map((name) => name.slice("fimble.".length));
  const everywhere = [WINDOW, ...(workspace.workspaceFolders ?? [])].map(settings);
  const set = names.filter((name) => everywhere.some((config) => isSet(config, name)));
  const all = Object.fromEntries(set.map((name) => [name, everywhere[0].get(name)]));
  // The server serves all folders: it is on if one of them is, and which are not is looked up here.
  if (set.includes("enabled")) {
    all.enabled = everywhere.some((config) => config.get("enabled"));
  }
  if (set.includes("disabledLanguages")) {
    const lists = everywhere.map((config) => config.get<string[]>("disabledLanguages", []));
    all.disabledLanguages = lists.reduce((common, list) => common.filter((name) => list.includes(name)));
  }
  return Object.fromEntries(Object.entries(all).filter(([name]) => !OURS.includes(name)));
}

/** Whether completions are on: for a document or a folder, or where neither has a word. */
export function enabled(scope?: ConfigurationScope): boolean {
  return settings(scope).get("enabled", true);
}

/** The languages without completions, for a document or a folder. */
export function disabledLanguages(scope?: ConfigurationScope): string[] {
  return settings(scope).get<string[]>("disabledLanguages", []);
}

/** The folder that a document is in, where the workspace has several: there each can have its own settings. */
export function folderAmongSeveral(document?: TextDocument): WorkspaceFolder | undefined {
  return document && severalFolders() ? workspace.getWorkspaceFolder(document.uri) : undefined;
}

/** Switches completions for a folder or for this workspace; for the user where neither is open. */
export async function toggle(folder?: WorkspaceFolder): Promise<void> {
  const { Global, Workspace, WorkspaceFolder } = ConfigurationTarget;
  const target = folder ? WorkspaceFolder : workspace.workspaceFolders ? Workspace : Global;
  await settings(folder).update("enabled", !enabled(folder), target);
}

/** Switches completions for a document's language: where its folder or the workspace has its own list there, else for the user. */
export async function toggleLanguage({ languageId, uri }: TextDocument): Promise<void> {
  const config = settings(uri);
  const places = config.inspect("disabledLanguages");
  const { Global, Workspace, WorkspaceFolder } = ConfigurationTarget;
  const inFolder = severalFolders() && places?.workspaceFolderValue !== undefined;
  const target = inFolder ? WorkspaceFolder : places?.workspaceValue !== undefined ? Workspace : Global;
  const others = disabledLanguages(uri).filter((name) => name !== languageId);
  const list = others.length < disabledLanguages(uri).length ? others : [...others, languageId];
  await config.update("disabledLanguages", list.length || target !== Global ? list : undefined, target);
}

function settings(scope?: ConfigurationScope | null): WorkspaceConfiguration {
  return workspace.getConfiguration("fimble", scope ?? WINDOW);
}

function isSet(config: WorkspaceConfiguration, name: string): boolean {
  const places = config.inspect(name);
  return [places?.globalValue, places?.workspaceValue, places?.workspaceFolderValue].some((value) => value !== undefined);
}

function severalFolders(): boolean {
  return (workspace.workspaceFolders?.length ?? 0) > 1;
}
