# Runs in the Linux guest: sg_referrals tells where the volume's pages lie, and a file system is written and verified while its session is moved from member to member, five
# times (the host's hook does it). No I/O error, and fsck finds nothing.
set -eu; P=$TGT_HOST:$TGT_PORT
start_iscsid
step "login"
iscsiadm -m node -o new -T $TGT_IQN -p $P; iscsiadm -m node -T $TGT_IQN -p $P -l
wait_disks 1 $TGT_IQN; D=$(session_disks $TGT_IQN | head -1)
step "referrals"
sg_referrals --maxlen=8192 /dev/$D || die "REPORT REFERRALS failed"
step "referrals from 100000 on"
sg_referrals --maxlen=8192 --lba=100000 /dev/$D || die "REPORT REFERRALS failed"
mkfs.ext4 -q -E nodiscard /dev/$D; mkdir -p /mnt/t; mount /dev/$D /mnt/t
dd if=/dev/urandom of=/tmp/pattern bs=64k count=32 2>/dev/null
for i in 1 2 3 4 5; do
  step "move $i, written meanwhile"
  ( for n in 1 2 3 4 5 6; do cp /tmp/pattern /mnt/t/f$i.$n; sync -f /mnt/t/f$i.$n; done ) & W=$!
  hostcall move $i || die "the host could not move the session"
  wait $W || die "a write failed"
  [ "$(session_disks $TGT_IQN | head -1)" = "$D" ] || die "the disk has another name"
done
step "verify"
sync; echo 3 > /proc/sys/vm/drop_caches
for i in 1 2 3 4 5; do for n in 1 2 3 4 5 6; do cmp /tmp/pattern /mnt/t/f$i.$n || die "f$i.$n differs"; done; done
umount /mnt/t
fsck.ext4 -f -n /dev/$D || die "fsck is not content"
step "logout"; iscsiadm -m node -T $TGT_IQN -u || true
dmesg | grep -iE 'I/O error|Sense Key|Buffer I/O' | grep -v sysrq && die "the kernel complained"
step "PASS moved"
