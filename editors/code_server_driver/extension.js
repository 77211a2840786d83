// Connects to the socket in FIMBLE_DRIVER and runs what comes from there: lines of {id, code, args}.
const net = require("net");
const readline = require("readline");
const vscode = require("vscode");

const Code = Object.getPrototypeOf(async () => {}).constructor;

// Whom anything in this extension host calls from here on, other than on this machine.
globalThis.calls = [];
const { connect } = net.Socket.prototype;
const LOCAL = ["localhost", "127.0.0.1", "::1"];
net.Socket.prototype.connect = function (...args) {
  const [options] = Array.isArray(args[0]) ? args[0] : args;
  const host = options?.path ? "localhost" : (options?.host ?? "localhost");
  if (typeof options === "object" && !LOCAL.includes(host)) {
    globalThis.calls.push(host);
  }
  return connect.apply(this, args);
};

exports.activate = () => {
  const socket = net.connect(process.env.FIMBLE_DRIVER);
  socket.on("error", () => {});
  readline.createInterface({ input: socket }).on("line", async (line) => {
    const { id, code, args } = JSON.parse(line);
    let answer;
    try {
      answer = { id, result: (await new Code("vscode", "args", code)(vscode, args)) ?? null };
    } catch (error) {
      answer = { id, error: String(error.stack ?? error) };
    }
    socket.write(JSON.stringify(answer) + "\n");
  });
};
