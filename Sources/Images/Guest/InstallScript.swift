/// What runs inside the new root file system, in the guest, after its files are there: the maintainer scripts, by dpkg,
/// and the settings that need programs of the guest.
///
/// The scripts run on an interpreter that is some fifty times slower than the host, so what they would do needlessly is
/// kept from them by programs of the same name earlier in PATH (`shims`).
enum InstallScript {
  static let script = #"""
    set -e
    export PATH=/run/build/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes
    export LC_ALL=C.UTF-8 LANG=C.UTF-8 HOME=/root USER=root LOGNAME=root TERM=dumb
    export SYSTEMD_OFFLINE=1
    umask 022
    cd /
    . /run/build/settings
    fail() { echo "$*" > /run/build/failure; exit 1; }

    # No service is started while the system is put together.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d

    # The preinst scripts, which dpkg would have run before it unpacked.
    export DPKG_MAINTSCRIPT_ARCH=riscv64 DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1
    export DPKG_ADMINDIR=/var/lib/dpkg DPKG_RUNNING_VERSION=1.22
    for stem in $PREINST; do
      export DPKG_MAINTSCRIPT_PACKAGE="${stem%%:*}"
      /var/lib/dpkg/info/$stem.preinst install </dev/null || fail "the preinst script of ${stem%%:*} failed"
    done
    unset DPKG_MAINTSCRIPT_ARCH DPKG_MAINTSCRIPT_NAME DPKG_MAINTSCRIPT_PACKAGE DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT
    unset DPKG_ADMINDIR DPKG_RUNNING_VERSION

    configure() {
      dpkg --force-unsafe-io --force-confold --status-fd 3 "$@" </dev/null 3>/dev/console >/run/build/log 2>&1 || {
        tail -n 40 /run/build/log >/dev/console
        fail "dpkg couldn't configure the packages; its last lines are above"
      }
    }
    # Everybody needs the users, and many need awk, before dpkg's own order would give them.
    configure --force-depends --configure base-passwd
    configure --configure --pending
    if [ -n "$LATE" ]; then
      group=
      for word in $LATE; do
        case $word in
          configure:*)
            [ -z "$group" ] || configure --unpack $group
            configure --configure $(echo "${word#configure:}" | tr , ' ')
            group= ;;
          *) group="$group /var/cache/apt/archives/$word" ;;
        esac
      done
      [ -z "$group" ] || configure --unpack $group
      configure --configure --pending
      rm -f /var/cache/apt/archives/*.deb
    fi

    rm -f /usr/sbin/policy-rc.d
    systemctl enable systemd-networkd.service systemd-resolved.service yadori-agent.service >/dev/null 2>&1 || true
    # What a guest that is often started anew and seldom idle has no use for; "systemctl enable" brings it back.
    for unit in systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
      e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-pstore.service remote-fs.target getty@tty1.service; do
      rm -f /etc/systemd/system/*.wants/$unit
    done

    if [ -n "$LOGIN" ]; then
      useradd --create-home --shell /bin/bash --groups sudo,adm,systemd-journal "$LOGIN" ||
        fail "can't add the user $LOGIN"
    fi
    home=/root
    [ -z "$LOGIN" ] || home=/home/$LOGIN
    if [ -f /run/build/authorized_keys ]; then
      mkdir -p -m 700 $home/.ssh
      install -m 600 /run/build/authorized_keys $home/.ssh/authorized_keys
      [ -z "$LOGIN" ] || chown -R "$LOGIN:$LOGIN" $home/.ssh
    fi
    if [ -f /run/build/password ]; then
      { printf '%s:' "${LOGIN:-root}"; cat /run/build/password; } | chpasswd || fail "can't set the password"
    fi

    # Each machine makes its own at its first start.
    : > /etc/machine-id
    rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_*
    ln -s /etc/machine-id /var/lib/dbus/machine-id
    rm -rf /var/lib/systemd/random-seed /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/*.log
    systemctl disable ssh.socket >/dev/null 2>&1 || true
    # /etc and /var agree with /usr: nothing needs to be brought up to date at the first start.
    touch -r /usr /etc/.updated /var/.updated
    """#

  /// Programs that stand before those of the guest while it is installed.
  static let shims: [(name: String, script: String)] = [
    // The host has written the indexes.
    ("depmod", "#!/bin/sh\nexit 0\n"),
    // No hardware here needs its database; an upgrade of udev makes it.
    ("systemd-hwdb", "#!/bin/sh\nexit 0\n"),
    // Host keys are made at the first start.
    ("ssh-keygen", "#!/bin/sh\nexit 0\n"),
    ("update-initramfs", "#!/bin/sh\nexit 0\n"),
    // Called twice by its package; the second time would do the same again.
    (
      "update-ca-certificates",
      "#!/bin/sh\n[ -e /run/build/certificates ] && exit 0\n: > /run/build/certificates\n"
        + "exec /usr/sbin/update-ca-certificates \"$@\"\n"
    ),
  ]
}
