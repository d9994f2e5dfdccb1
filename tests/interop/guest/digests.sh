# Runs in the Linux guest: header and data digests on, mutual CHAP when TGT_USER is set; patterns written and read back
# in sizes from a block to several MiB, so that immediate, unsolicited and solicited data carry digests.
set -eu; P=$TGT_HOST:$TGT_PORT
start_iscsid
conf 'node.conn[0].iscsi.HeaderDigest' CRC32C
conf 'node.conn[0].iscsi.DataDigest' CRC32C
if [ -n "${TGT_USER:-}" ]; then
  conf node.session.auth.authmethod CHAP
  conf node.session.auth.username "$TGT_USER"; conf node.session.auth.password "$TGT_SECRET"
  conf node.session.auth.username_in "$TGT_USER_IN"; conf node.session.auth.password_in "$TGT_SECRET_IN"
fi
step "login with digests"
iscsiadm -m node -o new -T $TGT_IQN -p $P; iscsiadm -m node -T $TGT_IQN -p $P -l
S=$(ls -d /sys/class/iscsi_connection/connection*:0 | head -1)
H=$(cat $S/header_digest) D=$(cat $S/data_digest); [ "$H $D" = "1 1" ] || die "digests not negotiated: header $H, data $D"
wait_disks 1 $TGT_IQN; D=$(session_disks $TGT_IQN | head -1)
dd if=/dev/urandom of=/tmp/pattern bs=1M count=8 2>/dev/null
for bs in 512 4k 64k 1M 4M; do
  step "write and read back in $bs"
  n=$((8 * 1048576)); case $bs in 512) n=$((128 * 1024)) ;; 4k) n=$((2 * 1048576)) ;; esac
  head -c $n /tmp/pattern > /tmp/part
  dd if=/tmp/part of=/dev/$D bs=$bs oflag=direct seek=0 2>/dev/null
  dd if=/dev/$D of=/tmp/back bs=$bs iflag=direct count=$(( (n + $(numfmt --from=iec ${bs^^}) - 1) / $(numfmt --from=iec ${bs^^}) )) 2>/dev/null
  cmp -n $n /tmp/part /tmp/back || die "read back differs at block size $bs"
  head -c 1048576 /tmp/pattern > /tmp/rest; tail -c +1048577 /tmp/pattern > /tmp/t; cat /tmp/rest >> /tmp/t; mv /tmp/t /tmp/pattern
done
step "logout"; iscsiadm -m node -T $TGT_IQN -p $P -u
dmesg | grep -iE 'I/O error|Sense Key|conn error|digest' | grep -v sysrq && die "the kernel complained"
step "PASS digests"
