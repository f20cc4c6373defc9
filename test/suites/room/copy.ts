/**
 * Shell lines that make a copy of this machine to install on and to break: its files, with everything that is written to them kept
 * in memory (`Shell.open({ prepare })`). `places` are directories of file systems of their own, where daemons keep layers: an overlay
 * does not stand on an overlay. Temporary files are the host's, and /run is empty.
 */
export function copyOfThisMachine(...places: string[]): string {
  return `
  mount -t tmpfs tmpfs /mnt
  mkdir /mnt/upper /mnt/work /mnt/root
  mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
  for place in /dev /sys /tmp; do mount --rbind $place /mnt/root$place; done
  mount -t proc proc /mnt/root/proc
  for place in /run ${places.join(' ')}; do mkdir -p /mnt/root$place; mount -t tmpfs tmpfs /mnt/root$place; done
  here=$PWD; mkdir -p /mnt/root/mnt/host; cd /mnt/root; pivot_root . mnt/host; umount -l /mnt/host
  cd "$here"`;
}
