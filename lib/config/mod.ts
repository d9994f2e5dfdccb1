// The configuration file: parsing, its rules, and what a start does about volumes and disks.

export { isLoopback, parseAddress } from "./address.ts";
export type * from "./config.ts";
export { nameExpected, nameProblem, targetName } from "./name.ts";
export { parseConfig, type ParseResult } from "./parse.ts";
export { resolvePath } from "./path.ts";
export { formatProblem, type Problem } from "./problem.ts";
export { chapSecretOfFile, chapSecretProblem, secretOfFile } from "./secret.ts";
export { formatSize, parseSize, sizeExpected } from "./size.ts";
export {
  type DiskPlan,
  reconcileDisks,
  reconcileVolumes,
  type VolumePlan,
  type VolumeWish,
  volumeWish,
} from "./reconcile.ts";
