# Runs in the Linux guest: a partition table, ext4 in the partition, files, a second login, read back.
set -eu; P=$TGT_HOST:$TGT_PORT
start_iscsid
step "login"; iscsiadm -m discovery -t st -p $P >/dev/null; iscsiadm -m node -T $TGT_IQN -p $P -l
wait_disks 1 $TGT_IQN; D=$(session_disks $TGT_IQN | head -1)
# The guest has no sfdisk: an MBR by hand, one Linux partition of 128 MiB at block 2048.
step "partition"
printf '\0\0\0\0\203\0\0\0\0\010\0\0\0\0\004\0' | dd of=/dev/$D bs=1 seek=446 2>/dev/null
printf '\125\252' | dd of=/dev/$D bs=1 seek=510 2>/dev/null
blockdev --flushbufs /dev/$D; blockdev --rereadpt /dev/$D
wait_for 20 test -b /dev/${D}1 || die "no partition device"
mkfs.ext4 -q -F /dev/${D}1; mount /dev/${D}1 /mnt
dd if=/dev/urandom of=/mnt/file bs=64k count=128 2>/dev/null; md5sum < /mnt/file > /tmp/sum; umount /mnt
step "log out and in"; iscsiadm -m node -T $TGT_IQN -p $P -u; iscsiadm -m node -T $TGT_IQN -p $P -l
wait_disks 1 $TGT_IQN; D=$(session_disks $TGT_IQN | head -1); wait_for 20 test -b /dev/${D}1 || die "the partition is gone"
e2fsck -f -n /dev/${D}1; mount /dev/${D}1 /mnt; md5sum < /mnt/file | cmp - /tmp/sum || die "read back differs"; umount /mnt
step "logout"; iscsiadm -m node -T $TGT_IQN -p $P -u
step "PASS partitions"
