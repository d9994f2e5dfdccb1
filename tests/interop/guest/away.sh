# Runs in the Linux guest: a file system on pages of three members is written while one of them is away for 20 s (the host kills
# it when it is called, and starts it again). No I/O error, fsck finds nothing, and everything reads back.
set -eu; P=$TGT_HOST:$TGT_PORT
start_iscsid
step "login"
iscsiadm -m node -o new -T $TGT_IQN -p $P; iscsiadm -m node -T $TGT_IQN -p $P -l
wait_disks 1 $TGT_IQN; D=$(session_disks $TGT_IQN | head -1)
mkfs.ext4 -q -E nodiscard /dev/$D; mkdir -p /mnt/t; mount /dev/$D /mnt/t
dd if=/dev/urandom of=/tmp/pattern bs=64k count=32 2>/dev/null
write() { cp /tmp/pattern /mnt/t/$1; sync -f /mnt/t/$1; }
for i in 1 2 3 4; do write before.$i; done
step "a member goes away"
hostcall kill || die "the host could not kill a member"
N=0; END=$(($(cut -d. -f1 /proc/uptime) + 30))
while [ $(cut -d. -f1 /proc/uptime) -lt $END ]; do N=$((N + 1)); write away.$N || die "write $N failed"; [ $N -lt 60 ] || break; done
step "$N files were written meanwhile, verify"
sync; echo 3 > /proc/sys/vm/drop_caches
for f in /mnt/t/before.* /mnt/t/away.*; do cmp /tmp/pattern $f || die "$f differs"; done
umount /mnt/t
fsck.ext4 -f -n /dev/$D || die "fsck is not content"
step "logout"; iscsiadm -m node -T $TGT_IQN -u || true
dmesg | grep -iE 'I/O error|Sense Key|Buffer I/O' | grep -v sysrq && die "the kernel complained"
step "PASS away"
