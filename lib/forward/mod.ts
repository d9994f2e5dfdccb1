// Forwarding between members: the asking end, the serving end, and what both agree on.

export { type HopClass, MemberDirectory } from "./member_directory.ts";
export { type HomeRoutes, HomeServer, type KeepOff } from "./home_server.ts";
export { type IncomingPage, IncomingPages, type IncomingStore } from "./incoming_pages.ts";
export type { HomeLink, Peer } from "./home_link.ts";
export { readSense } from "./volume_command.ts";
export { Path, type PathOwner, type PathParts, type PathPlace } from "./path.ts";
export { PathForwarder, type PathForwarderParts } from "./path_forwarder.ts";
export {
  hopsMax,
  isProxyName,
  memberName,
  type MemberProofs,
  proxyIsid,
  proxyName,
  proxyProofs,
} from "./identity.ts";
export { type MessageAnswer, type MessageListener, MessageServer } from "./message_server.ts";
export { type MessageOutcome, Messenger } from "./messenger.ts";
export { type ForwarderParts, MemberForwarder } from "./member_forwarder.ts";
