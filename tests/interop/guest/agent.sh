# Runs in the Linux guest: the host agent, as packed, builds a switch device over sessions of this kernel and keeps it in step while
# pages move, members die, and the volume grows and is replaced. The test serves what the guest needs by HTTP, does what it is asked to, and tells what members know.
set -eu
D=/dev/mapper/plimsoll-vol0 LOG=/tmp/agent.log
ask() { wget -q -O - http://127.0.0.1:$WEB_PORT/$1 || die "the test could not: $1"; }
agent() { plimsoll host-agent -c /etc/plimsoll/agent.toml 2>>$LOG 3<&- & AGENT=$!; }
said() { wait_for $1 grep -q "$2" $LOG || { cat $LOG; dmsetup table; dmsetup status; dmesg | tail -20; die "the agent does not say: $2"; }; }
verified() { fio --name=v --filename=$D --direct=1 --ioengine=libaio --iodepth=8 --size=16m --verify=crc32c --verify_fatal=1 --bs=64k \
  "$@" >/tmp/fio.$1 2>&1 || { cat /tmp/fio.$1; cat $LOG; dmsetup status; dmesg | tail -20; die "fio $*"; }; }
# Three times at most: on a machine that has no time for its guest a path may be lost in between, which is for others to show.
none_forwarded() { for I in 1 2 3; do udevadm settle; F=$(ask forwarded); "$@"; N=$(ask forwarded); [ $F != $N ] || return 0; note "$((N - F)) were forwarded"; sleep 4; done
  cat $LOG; dmsetup status; dmesg | tail -20; die "commands are forwarded every time"; }
# The guest's 127.0.0.1 is its host's.
ADMIN=http://127.0.0.99:3283
well() { wget -q -O /tmp/health $ADMIN/healthz; }
read_only() { wait_for 60 sh -c "[ \$(blockdev --getro $D) = $1 ]" || { cat $LOG; dmsetup table; die "read-only is not $1"; }; }
written() { dd if=/dev/zero of=$D bs=4k count=1 oflag=direct conv=notrunc 2>/dev/null; }
start_iscsid; mkdir -p /etc/multipath/conf.d /etc/plimsoll; start_multipathd
mkdir -p $CACHE_DIRECTORY; ask cache.tar | tar -x -C $CACHE_DIRECTORY
ask plimsoll > /usr/bin/plimsoll; chmod +x /usr/bin/plimsoll
ask agent.toml > /etc/plimsoll/agent.toml; (umask 077; ask secret > /etc/plimsoll/group.secret)

step "a volume with a write cache gets no device, and gets one when it has none"
agent; said 90 'plimsoll volume set vol0 --write-cache off'
[ ! -e $D ] || die "there is a device"
well && die "the agent says it is well without a device"
ask cache-off; said 90 'device is there'
[ $(session_disks $TGT_IQN | wc -l) = 3 ] || die "not three sessions"
well || { wget -q -O - $ADMIN/api/status; die "the agent says it is not well"; }
wget -q -O - $ADMIN/api/status | grep -q '"device":{"path":"/dev/mapper/plimsoll-vol0","sizeBytes":16777216,"readOnly":false,"epoch":[0-9]' || die "the agent's status"
multipath -ll | grep -i plimsoll && die "multipathd has merged the sessions"
[ "$(cat /sys/block/$(basename $(readlink $D))/queue/write_cache)" = "write through" ] || die "the device says it has a write cache"

cat $LOG
step "fio writes and verifies; nothing is forwarded"
none_forwarded verified --rw=write --do_verify=1

step "the agent is killed; the device goes on without it, and the next agent goes on with the device"
exec 3<$D
kill -9 $AGENT; wait $AGENT || true
none_forwarded verified --rw=randread --io_size=8m
: > $LOG; agent; said 60 'device is there'
none_forwarded verified --rw=randread --io_size=8m

step "a member dies under load and comes back"
verified --rw=randwrite --io_size=16m --do_verify=1 & FIO=$!
ask kill; wait $FIO || die "fio while a member was away"
wait_for 60 sh -c "! dmsetup status --target multipath | grep -q ' F '" || { cat $LOG; dmsetup status; die "a path is not taken back"; }
wait_for 60 sh -c "! dmsetup status --target multipath | grep -q ' 2 2 [AE] '" || { cat $LOG; dmsetup status; die "a map stays on its fallback"; }
none_forwarded verified --rw=read

step "pages move from one member to the two others while fio goes on"
verified --rw=randwrite --io_size=16m --do_verify=1 & FIO=$!
ask drain; wait $FIO || die "fio while pages moved"
wait_for 60 sh -c '! dmsetup info plimsoll-vol0:gamma >/dev/null 2>&1' || { cat $LOG; dmsetup table; die "gamma has no pages, and a map"; }
wait_for 60 sh -c "[ \$(ls /sys/class/iscsi_session | wc -l) = 2 ]" || die "gamma has no pages, and a session"
none_forwarded verified --rw=read --verify_only=0

step "the volume grows; then all members are away under load"
ask grow; wait_for 60 sh -c "[ \$(blockdev --getsize64 $D) = 25165824 ]" || { cat $LOG; dmsetup table; die "the device does not grow"; }
verified --rw=randwrite --offset=16m --size=8m --io_size=16m --do_verify=1 & FIO=$!
ask kill-all; wait $FIO || die "fio while all members were away"

step "the volume is deleted and made again while its device is in use"
ask replace; said 60 'of a volume that was deleted and made again, and is in use'
dd if=$D of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null && die "the old device shows the new volume"
: > $LOG; exec 3<&-; said 60 'device is there'
[ "$(blockdev --getsize64 $D)" = 16777216 ] || die "the new device has another size"

step "a write-protected volume has a read-only device, and a writable one when the protection is lifted"
read_only 1; dd if=$D of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null || die "a read-only device cannot be read"
written && die "a read-only device is written"
ask unprotect; read_only 0; written || { cat $LOG; dmsetup table; dmesg | tail; die "a writable device is not written"; }
exec 4<>$D; ask protect; read_only 1; echo | dd bs=4k conv=sync >&4 2>/dev/null && die "a read-only device is written"
exec 4>&-; written && die "a read-only device is written"
well || { wget -q -O - $ADMIN/api/status; die "the agent says it is not well"; }

step "everything is taken down in order"
dmesg | grep -E 'I/O error,? (on )?dev dm-' | grep -v 'sector 0 ' && die "the kernel complained"
kill $AGENT; wait $AGENT || { cat $LOG; die "the agent ended with $?"; }
dmsetup ls | grep plimsoll && die "a device is left"
[ -z "$(session_disks)" ] || die "a session is left"
[ -z "$(ls -A /etc/iscsi/nodes /etc/iscsi/ifaces /etc/multipath/conf.d)" ] || [ -z "$(find /etc/iscsi/nodes /etc/iscsi/ifaces /etc/multipath/conf.d -type f)" ] || die "a record is left"
grep -q "$(cat /etc/plimsoll/group.secret)" $LOG && die "the log has the secret"
step "PASS agent"
