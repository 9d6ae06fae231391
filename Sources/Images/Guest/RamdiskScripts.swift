/// The `init` programs of our initial ramdisks, for busybox's shell.
///
/// Debian's own initramfs-tools isn't used: making its ramdisk means running some thousands of programs in the guest.
enum RamdiskScripts {
  /// Mounts what every init needs and loads the modules of /modules/order.
  private static let beginning = """
    #!/bin/busybox sh
    # Started by the kernel as the first program.
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin
    busybox mkdir -p /proc /sys /dev /run /tmp
    busybox mount -t proc -o nosuid,nodev,noexec proc /proc
    busybox mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
    busybox mount -t devtmpfs -o nosuid,mode=0755 devtmpfs /dev
    exec </dev/console >/dev/console 2>&1
    while read module; do
      busybox insmod "/modules/$module" || echo "init: can't load the module $module"
    done < /modules/order

    """

  /// Finds the root file system, mounts it and starts the system on it.
  static let root =
    beginning + """
      root= flags= type=ext4 mode=ro program=/sbin/init wait=10
      for word in $(busybox cat /proc/cmdline); do
        case "$word" in
          root=*) root="${word#root=}" ;;
          rootflags=*) flags="${word#rootflags=}" ;;
          rootfstype=*) type="${word#rootfstype=}" ;;
          rootdelay=*) wait="${word#rootdelay=}" ;;
          init=*) program="${word#init=}" ;;
          rw) mode=rw ;;
          ro) mode=ro ;;
        esac
      done
      rescue() {
        echo "init: $*"
        echo "init: this is a shell of the initial ramdisk; \\"poweroff -f\\" ends the machine"
        busybox --install -s /bin
        exec setsid cttyhack sh
      }
      [ -n "$root" ] || rescue "the kernel command line has no root="
      tries=0
      while :; do
        case "$root" in
          LABEL=*|UUID=*) device=$(busybox findfs "$root" 2>/dev/null) ;;
          *) device="$root" ;;
        esac
        [ -b "$device" ] && break
        tries=$((tries + 1))
        [ "$tries" -gt $((wait * 10)) ] && rescue "the root file system $root isn't there"
        busybox usleep 100000
      done
      busybox mkdir -p /root
      busybox mount -t "$type" -o "$mode${flags:+,$flags}" "$device" /root || rescue "can't mount $device"
      for folder in dev proc sys; do busybox mount -o move /$folder /root/$folder; done
      exec busybox switch_root /root "$program"
      rescue "can't start $program"

      """

  /// A shell with a network, and nothing else.
  static let tiny =
    beginning + """
      busybox --install -s /bin
      busybox mkdir -p /etc /root /mnt /var /dev/pts
      busybox mount -t devpts devpts /dev/pts
      busybox hostname -F /etc/hostname
      busybox ip link set lo up
      for interface in /sys/class/net/*; do
        interface=${interface##*/}
        [ "$interface" = lo ] && continue
        busybox ip link set "$interface" up
        busybox udhcpc -q -n -t 4 -T 2 -i "$interface" -s /etc/udhcpc >/dev/null 2>&1 &
      done
      # A command of the kernel command line runs instead of the shell: yadori.run=COMMAND with %20 for a space.
      command=
      for word in $(busybox cat /proc/cmdline); do
        case "$word" in
          yadori.run=*) command=$(printf '%s' "${word#yadori.run=}" | busybox sed 's/%20/ /g') ;;
        esac
      done
      export HOME=/root TERM="${TERM:-linux}"
      cd /root
      if [ -n "$command" ]; then
        wait
        busybox sh -c "$command"
        echo "init: the command ended with status $?"
      else
        cat /etc/motd
        while :; do
          busybox setsid cttyhack sh -l
          echo "init: the shell ended; starting another (\\"poweroff -f\\" ends the machine)"
          busybox sleep 1
        done
      fi
      busybox sync
      busybox poweroff -f

      """

  /// What udhcpc calls with what the network's DHCP server said (busybox: examples/udhcp/simple.script for the names).
  static let dynamicConfiguration = """
    #!/bin/busybox sh
    case "$1" in
      deconfig)
        busybox ip -4 addr flush dev "$interface"
        ;;
      bound|renew)
        busybox ip addr add "$ip/${mask:-24}" dev "$interface"
        for gateway in $router; do busybox ip route add default via "$gateway" dev "$interface" && break; done
        : > /etc/resolv.conf
        for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done
        ;;
    esac

    """

  /// Installs Debian: makes the file system on one disk, fills it from the tar archive that is the other one, and lets
  /// dpkg configure it. The host reads the lines that start with "yadori-build:".
  static let builder =
    beginning + """
      busybox --install -s /bin
      say() { echo "yadori-build: $*"; }
      fail() {
        say "failed $*"
        sync
        poweroff -f
        sleep 60
      }
      target= archive=
      for disk in /dev/vd?; do
        if [ "$(dd if=$disk bs=1 skip=257 count=5 2>/dev/null)" = ustar ]; then archive=$disk; else target=$disk; fi
      done
      [ -b "$target" ] && [ -b "$archive" ] || fail "the two disks aren't there"
      . /build/settings
      say step format
      # The disk is new, so its inode tables are zero already.
      /usr/sbin/mke2fs -q -F -t ext4 -L "$LABEL" -U "$UUID" -m 1 -E nodiscard,assume_storage_prezeroed=1,lazy_itable_init=1 \\
        "$target" || fail "mke2fs ended with status $?"
      mkdir -p /target
      # Nothing on it needs to survive a crash before the end.
      mount -t ext4 -o noatime,nobarrier,data=writeback,commit=600,noauto_da_alloc,noinit_itable "$target" /target ||
        fail "can't mount the new file system"
      say step unpack
      tar -x -p -f "$archive" -C /target || fail "tar ended with status $?"
      mount -t proc proc /target/proc
      mount -t sysfs -o ro sysfs /target/sys
      mount -t devtmpfs devtmpfs /target/dev
      mount -t tmpfs -o mode=0755 tmpfs /target/run
      mount -t tmpfs tmpfs /target/tmp
      chmod 1777 /target/tmp
      cp -r /build /target/run/build
      say step configure
      chroot /target /bin/sh /run/build/install || fail "$(cat /target/run/build/failure 2>/dev/null)"
      say step finish
      for folder in tmp run dev sys proc; do umount /target/$folder; done
      umount /target || fail "can't unmount the new file system"
      sync
      say done
      poweroff -f
      sleep 60

      """
}
