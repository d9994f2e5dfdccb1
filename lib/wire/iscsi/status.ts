// Codes of the iSCSI PDUs with the standard's names (RFC 7143 §11): what a response, reject or asynchronous message says.

/** A code and the words of the standard for it. */
export interface Code {
  readonly code: number;
  readonly text: string;
}

/** Stages of login, CSG and NSG (§11.12.3). */
export const LoginStage = Object.freeze({
  securityNegotiation: 0,
  loginOperationalNegotiation: 1,
  fullFeaturePhase: 3,
});

/** Status-Class (high byte) and Status-Detail (low byte) of a Login Response (§11.13.5). */
export const LoginStatus = codes({
  success: [0x0000, "Success"],
  targetMovedTemporarily: [0x0101, "Target moved temporarily"],
  targetMovedPermanently: [0x0102, "Target moved permanently"],
  initiatorError: [0x0200, "Initiator error"],
  authenticationFailure: [0x0201, "Authentication failure"],
  authorizationFailure: [0x0202, "Authorization failure"],
  notFound: [0x0203, "Not found"],
  targetRemoved: [0x0204, "Target removed"],
  unsupportedVersion: [0x0205, "Unsupported version"],
  tooManyConnections: [0x0206, "Too many connections"],
  missingParameter: [0x0207, "Missing parameter"],
  cannotIncludeInSession: [0x0208, "Can't include in session"],
  sessionTypeNotSupported: [0x0209, "Session type not supported"],
  sessionDoesNotExist: [0x020a, "Session does not exist"],
  invalidRequestDuringLogin: [0x020b, "Invalid request during login"],
  targetError: [0x0300, "Target error"],
  serviceUnavailable: [0x0301, "Service unavailable"],
  outOfResources: [0x0302, "Out of resources"],
});

/** Reason of a Reject (§11.17.1). */
export const RejectReason = codes({
  dataDigestError: [0x02, "Data (payload) digest error"],
  snackReject: [0x03, "SNACK reject"],
  protocolError: [0x04, "Protocol error"],
  commandNotSupported: [0x05, "Command not supported"],
  immediateCommandReject: [0x06, "Immediate command reject - too many immediate commands"],
  taskInProgress: [0x07, "Task in progress"],
  invalidDataAck: [0x08, "Invalid data ACK"],
  invalidPduField: [0x09, "Invalid PDU field"],
  longOperationReject: [0x0a, "Long op reject - can't generate Target Transfer Tag - out of resources"],
  negotiationReset: [0x0b, "Negotiation reset (deprecated)"],
  waitingForLogout: [0x0c, "Waiting for logout"],
});

/** Response of a SCSI Response (§11.4.3). */
export const ScsiResponseCode = codes({
  commandCompleted: [0x00, "Command completed at target"],
  targetFailure: [0x01, "Target failure"],
});

/** Function of a Task Management Function Request (§11.5.1; from 9 on RFC 7144 §6.1). */
export const TaskManagementFunctionCode = codes({
  abortTask: [1, "ABORT TASK"],
  abortTaskSet: [2, "ABORT TASK SET"],
  clearAca: [3, "CLEAR ACA"],
  clearTaskSet: [4, "CLEAR TASK SET"],
  logicalUnitReset: [5, "LOGICAL UNIT RESET"],
  targetWarmReset: [6, "TARGET WARM RESET"],
  targetColdReset: [7, "TARGET COLD RESET"],
  taskReassign: [8, "TASK REASSIGN"],
  queryTask: [9, "QUERY TASK"],
  queryTaskSet: [10, "QUERY TASK SET"],
  iTNexusReset: [11, "I_T NEXUS RESET"],
  queryAsynchronousEvent: [12, "QUERY ASYNCHRONOUS EVENT"],
});

/** Response of a Task Management Function Response (§11.6.1). */
export const TaskManagementResponseCode = codes({
  functionComplete: [0, "Function complete"],
  taskDoesNotExist: [1, "Task does not exist"],
  lunDoesNotExist: [2, "LUN does not exist"],
  taskStillAllegiant: [3, "Task still allegiant"],
  taskAllegianceReassignmentNotSupported: [4, "Task allegiance reassignment not supported"],
  taskManagementFunctionNotSupported: [5, "Task management function not supported"],
  functionAuthorizationFailed: [6, "Function authorization failed"],
  functionRejected: [255, "Function rejected"],
});

/** Reason of a Logout Request (§11.14.1). */
export const LogoutReason = codes({
  closeSession: [0, "Close the session"],
  closeConnection: [1, "Close the connection"],
  removeConnectionForRecovery: [2, "Remove the connection for recovery"],
});

/** Response of a Logout Response (§11.15.1). */
export const LogoutResponseCode = codes({
  closed: [0, "Connection or session closed successfully"],
  connectionIdNotFound: [1, "CID not found"],
  connectionRecoveryNotSupported: [2, "Connection recovery is not supported"],
  cleanupFailed: [3, "Cleanup failed"],
});

/** AsyncEvent of an Asynchronous Message (§11.9.1). */
export const AsyncEvent = codes({
  scsiEvent: [0, "SCSI asynchronous event"],
  logoutRequested: [1, "Target requests logout"],
  connectionDropped: [2, "Target will drop the connection"],
  sessionDropped: [3, "Target will drop all connections of the session"],
  negotiationRequested: [4, "Target requests parameter negotiation"],
  tasksTerminated: [5, "All active tasks for the LUN are being terminated"],
  vendor: [255, "Vendor-specific event"],
});

/** Type of a SNACK Request (§11.16.1). */
export const SnackType = codes({
  dataOrR2t: [0, "Data/R2T"],
  status: [1, "Status"],
  dataAck: [2, "DataACK"],
  rData: [3, "R-Data"],
});

/** The standard's words for `code` in one of these tables, or null when the standard has none. */
export function codeText(table: Readonly<Record<string, Code>>, code: number): string | null {
  for (const entry of Object.values(table)) {
    if (entry.code === code) return entry.text;
  }
  return null;
}

function codes<K extends string>(entries: Record<K, readonly [number, string]>): Readonly<Record<K, Code>> {
  const out = {} as Record<K, Code>;
  for (const key of Object.keys(entries) as K[]) {
    const [code, text] = entries[key];
    out[key] = Object.freeze({ code, text });
  }
  return Object.freeze(out);
}
