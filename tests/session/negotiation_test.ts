import { strict as assert } from "node:assert";
import {
  initiatorWishes,
  type Negotiated,
  Negotiation,
  type Phase,
  targetWishes,
} from "../../lib/session/negotiation.ts";
import { isKeyName, type TextPair } from "../../lib/wire/iscsi/text.ts";

function pairs(text: string): TextPair[] {
  return text.split(" ").filter((t) => t !== "").map((t) => {
    const at = t.indexOf("=");
    return { key: t.slice(0, at), value: t.slice(at + 1) };
  });
}

/** "A=1 B=2" in, the same form out, or "error: …". */
function said(n: Negotiation, text: string, phase: Phase = "operational"): string {
  const result: Negotiated = n.receive(pairs(text), phase);
  if (result.kind === "error") return `error: ${result.reason}`;
  return result.replies.map((p) => `${p.key}=${p.value}`).join(" ");
}

const target = () => new Negotiation("target", targetWishes);

Deno.test("negotiation: every key of the standard against our target", () => {
  // Without this, one wrong result function makes both ends believe in different bursts, digests or orders.
  const cases: [string, string][] = [
    ["HeaderDigest=CRC32C,None", "HeaderDigest=CRC32C"],
    ["HeaderDigest=None,CRC32C", "HeaderDigest=None"],
    ["DataDigest=SHA9,CRC32C", "DataDigest=CRC32C"],
    ["DataDigest=SHA9", "DataDigest=Reject"],
    ["MaxConnections=8", "MaxConnections=1"],
    ["MaxConnections=0", "MaxConnections=Reject"],
    ["MaxConnections=65536", "MaxConnections=Reject"],
    ["InitialR2T=Yes", "InitialR2T=Yes"],
    ["InitialR2T=No", "InitialR2T=No"],
    ["InitialR2T=yes", "InitialR2T=Reject"],
    ["ImmediateData=Yes", "ImmediateData=Yes"],
    ["ImmediateData=No", "ImmediateData=No"],
    ["MaxBurstLength=16777215", "MaxBurstLength=16777215"],
    ["MaxBurstLength=0x10000", "MaxBurstLength=65536"],
    ["MaxBurstLength=511", "MaxBurstLength=Reject"],
    ["MaxBurstLength=16777216", "MaxBurstLength=Reject"],
    ["FirstBurstLength=512", "FirstBurstLength=512"],
    ["FirstBurstLength=16777215", `FirstBurstLength=${targetWishes.firstBurstLength}`],
    ["DefaultTime2Wait=2", "DefaultTime2Wait=2"],
    ["DefaultTime2Wait=3601", "DefaultTime2Wait=Reject"],
    ["DefaultTime2Retain=20", "DefaultTime2Retain=0"],
    ["MaxOutstandingR2T=1", "MaxOutstandingR2T=1"],
    ["MaxOutstandingR2T=65535", `MaxOutstandingR2T=${targetWishes.maxOutstandingR2t}`],
    ["DataPDUInOrder=No", "DataPDUInOrder=Yes"],
    ["DataSequenceInOrder=No", "DataSequenceInOrder=Yes"],
    ["ErrorRecoveryLevel=2", "ErrorRecoveryLevel=0"],
    ["ErrorRecoveryLevel=3", "ErrorRecoveryLevel=Reject"],
    ["TaskReporting=FastAbort,RFC3720", "TaskReporting=RFC3720"],
    ["TaskReporting=FastAbort", "TaskReporting=Reject"],
    ["iSCSIProtocolLevel=2", "iSCSIProtocolLevel=1"],
    ["iSCSIProtocolLevel=0", "iSCSIProtocolLevel=0"],
    ["IFMarker=Yes", "IFMarker=No"],
    ["OFMarker=No", "OFMarker=No"],
    ["IFMarkInt=1~2", "IFMarkInt=Reject"],
    ["X-com.example.key=1", "X-com.example.key=NotUnderstood"],
    ["X#NodeArchitecture=Linux", ""],
    ["Nonsense=1", "Nonsense=NotUnderstood"],
    ["RDMAExtensions=Yes", "RDMAExtensions=NotUnderstood"],
    ["SendTargets=All", "SendTargets=Reject"],
    ["AuthMethod=None", "AuthMethod=Reject"],
    ["MaxRecvDataSegmentLength=262144", ""],
  ];
  for (const [offer, answer] of cases) assert.equal(said(target(), offer), answer, offer);
});

Deno.test("negotiation: what a real initiator sends at once", () => {
  // Without this, the parameters the transfers use could differ from the answers given.
  const n = target();
  const reply = said(
    n,
    "HeaderDigest=None,CRC32C DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No " +
      "ErrorRecoveryLevel=0 InitialR2T=No ImmediateData=Yes MaxBurstLength=16776192 FirstBurstLength=262144 " +
      "MaxOutstandingR2T=1 MaxConnections=1 DataPDUInOrder=Yes DataSequenceInOrder=Yes MaxRecvDataSegmentLength=262144",
  );
  assert.equal(
    reply,
    "HeaderDigest=None DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No " +
      "ErrorRecoveryLevel=0 InitialR2T=No ImmediateData=Yes MaxBurstLength=16776192 " +
      `FirstBurstLength=${targetWishes.firstBurstLength} ` +
      "MaxOutstandingR2T=1 MaxConnections=1 DataPDUInOrder=Yes DataSequenceInOrder=Yes",
  );
  assert.equal(n.parameters.peerMaxRecvDataSegmentLength, 262_144);
  assert.equal(n.parameters.initialR2t, false);
  assert.equal(n.parameters.firstBurstLength, targetWishes.firstBurstLength);
});

Deno.test("negotiation: FirstBurstLength depends on the keys beside it, in whatever order they come", () => {
  // Without this, more unsolicited data than one burst could be agreed.
  assert.equal(
    said(target(), "FirstBurstLength=65536 MaxBurstLength=1024"),
    "FirstBurstLength=1024 MaxBurstLength=1024",
  );
  assert.equal(
    said(target(), "FirstBurstLength=65536 InitialR2T=Yes ImmediateData=No"),
    "FirstBurstLength=Irrelevant InitialR2T=Yes ImmediateData=No",
  );
});

Deno.test("negotiation: a key that comes twice ends the login", () => {
  // Without this, a peer could change a parameter after it was used (RFC 7143 §6.3).
  const n = target();
  assert.equal(said(n, "MaxBurstLength=1024"), "MaxBurstLength=1024");
  assert.match(said(n, "MaxBurstLength=2048"), /^error: .*twice/);
  assert.match(said(target(), "Foo=1 Foo=1"), /^error/);
  const text = target();
  said(text, "MaxRecvDataSegmentLength=1024");
  text.beginSequence();
  assert.equal(said(text, "MaxRecvDataSegmentLength=2048", "fullFeature"), "");
  assert.equal(text.parameters.peerMaxRecvDataSegmentLength, 2048);
});

Deno.test("negotiation: keys in the wrong stage or from the wrong end", () => {
  // Without this, operational keys could be changed in full feature phase, or a target be told its own name.
  assert.equal(said(target(), "HeaderDigest=None", "security"), "HeaderDigest=Reject");
  assert.equal(
    said(target(), "InitialR2T=No MaxBurstLength=512", "fullFeature"),
    "InitialR2T=Reject MaxBurstLength=Reject",
  );
  assert.match(said(target(), "TargetPortalGroupTag=1"), /^error: .*not the initiator's/);
  assert.match(said(target(), "MaxRecvDataSegmentLength=511"), /^error/);
  const names = target();
  assert.equal(said(names, "InitiatorName=iqn.x SessionType=Normal InitiatorAlias=", "security"), "");
  assert.equal(names.declared.get("SessionType"), "Normal");
});

Deno.test("negotiation: discovery sessions and joining connections", () => {
  // Without this, keys without meaning would be agreed (RFC 7143 §13, "irrelevant when").
  const n = target();
  n.discovery = true;
  assert.equal(
    said(n, "InitialR2T=No MaxBurstLength=512 HeaderDigest=None ErrorRecoveryLevel=1"),
    "InitialR2T=Irrelevant MaxBurstLength=Irrelevant HeaderDigest=None ErrorRecoveryLevel=0",
  );
  const joining = target();
  joining.leading = false;
  assert.equal(said(joining, "MaxBurstLength=512 DataDigest=None"), "MaxBurstLength=Reject DataDigest=None");
});

Deno.test("negotiation: our initiator with our target, and with a target that answers little", () => {
  // Without this, the two ends of one table could disagree.
  const initiator = new Negotiation("initiator", { ...initiatorWishes, headerDigest: ["CRC32C"] });
  const end = target();
  const answer = end.receive(initiator.offers(), "operational");
  assert.equal(answer.kind, "ok");
  if (answer.kind !== "ok") return;
  assert.equal(initiator.receive([...answer.replies, end.declareOwn()], "operational").kind, "ok");
  assert.equal(initiator.awaitsAnswers, false);
  const { ownMaxRecvDataSegmentLength: a, peerMaxRecvDataSegmentLength: b, ...theirs } = end.parameters;
  const { ownMaxRecvDataSegmentLength: c, peerMaxRecvDataSegmentLength: d, ...ours } = initiator.parameters;
  assert.deepEqual(ours, theirs);
  assert.equal(ours.headerDigest, "CRC32C");
  assert.deepEqual([a, b], [d, c]);

  const alone = new Negotiation("initiator", initiatorWishes);
  alone.offers();
  assert.equal(said(alone, "MaxBurstLength=Irrelevant FirstBurstLength=NotUnderstood InitialR2T=Reject"), "");
  assert.equal(alone.parameters.maxBurstLength, 262_144);
  assert.equal(alone.parameters.dataPduInOrder, true);
});

Deno.test("negotiation: our initiator refuses answers that are no result of its offer", () => {
  // Without this, a target could make us send more than we said.
  for (
    const bad of ["MaxBurstLength=99999999", "ImmediateData=Maybe", "HeaderDigest=MD5", "DefaultTime2Wait=x"]
  ) {
    const n = new Negotiation("initiator", initiatorWishes);
    n.offers();
    assert.match(said(n, bad), /^error/, bad);
  }
  const n = new Negotiation("initiator", { ...initiatorWishes, immediateData: false, maxBurstLength: 1024 });
  n.offers();
  assert.match(said(n, "ImmediateData=Yes"), /^error/);
  assert.match(said(n, "MaxBurstLength=2048"), /^error/);
});

Deno.test("negotiation: the standard's own keys are key names", () => {
  // Without this, a login with iSCSIProtocolLevel would be called malformed before it is negotiated.
  for (const key of ["iSCSIProtocolLevel", "X#NodeArchitecture", "X-com.example.a", "CHAP_A"]) {
    assert.ok(isKeyName(key));
  }
});
