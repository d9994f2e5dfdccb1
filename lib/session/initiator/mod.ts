// The project's own initiator: the session as a machine, and promises over it for tests and tools.

export {
  type ClientOptions,
  type CommandOptions,
  type CommandResult,
  InitiatorClient,
  LoginError,
} from "./client.ts";
export {
  type CommandOutcome,
  type ControlAnswer,
  InitiatorCommand,
  makePdu,
  type ReceivedPdu,
} from "./command.ts";
export type { InitiatorSessionHandler, InitiatorSessionOptions, SessionEnd } from "./options.ts";
export { InitiatorSession } from "./session.ts";
