// Short cuts between members: the lender, the borrower. docs/short-cut.md.

export { Borrower } from "./borrower.ts";
export { Lender } from "./lender.ts";
export { Egress, worthShortCut } from "./worth.ts";
