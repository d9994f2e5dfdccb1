// Forwarding between members: the asking end, the serving end, and what both agree on.

export { type HopClass, MemberDirectory } from "./member_directory.ts";
export { type HomeRoutes, HomeServer, type KeepOff } from "./home_server.ts";
export type { HomeLink, Peer } from "./home_link.ts";
export { hopsMax } from "./identity.ts";
export { type ForwarderParts, MemberForwarder } from "./member_forwarder.ts";
