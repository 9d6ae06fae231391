# Runs the programs of ./plan, one after the other, in the folder that holds them: in a guest or in a chroot.
# Each line for the host begins with @. What a program prints for people is dropped.
cd "$(dirname -- "$0")" || exit 1
. ./settings
export LC_ALL=C HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# program UNIT PREPARE COMMAND NAME...   Unit s: the command is timed. Else it prints one value for each name.
program() {
  local unit=$1 prepare=$2 command=$3 turn begin end elapsed values
  shift 3
  echo "@start $1"
  for ((turn = 0; turn < turns; turn++)); do
    (eval "$prepare") </dev/null >output 2>errors || { failed "$@"; return; }
    begin=$EPOCHREALTIME
    (eval "$command") </dev/null >output 2>errors || { failed "$@"; return; }
    end=$EPOCHREALTIME
    if [ "$unit" = s ]; then
      elapsed=$((${end/./} - ${begin/./}))
      printf '@value %s %d.%06d\n' "$1" $((elapsed / 1000000)) $((elapsed % 1000000))
      [ "$turn" -gt 0 ] || echo "@output $1 $(cksum <output)"
    else
      mapfile -t values <output
      [ "${#values[@]}" = $# ] || { echo "printed ${#values[@]} values" >errors; failed "$@"; return; }
      for name in "$@"; do
        echo "@value $name ${values[0]}"
        values=("${values[@]:1}")
      done
    fi
  done
}

failed() {
  local why
  why=$(cat output errors | grep -a -v '^[[:space:]]*$' | tail -n 1 | tr -cd '[:print:]' | cut -c1-160)
  for name in "$@"; do echo "@failed $name ${why:-ended with an error}"; done
}

# compile FILE.c   Makes ./FILE, once.
compile() {
  [ -x "${1%.c}" ] || gcc -O2 -o "${1%.c}" "$1"
}

# rsa   Signatures and verifications a second ("+R1:COUNT:BITS:SECONDS", "+R2:..."). openssl would go on with more.
rsa() {
  local kind count bits seconds sum=""
  exec 3< <(exec openssl speed -mr -elapsed -seconds 2 rsa2048 2>&1)
  while IFS=: read -r kind count bits seconds <&3; do
    case $kind in
      +R1) sum="print $count / $seconds" ;;
      +R2) sum="$sum; print $count / $seconds"; break ;;
    esac
  done
  kill $!
  awk "BEGIN {$sum}"
}

# stress OPTION...   Prints what stress-ng did a second. As nobody: some of its stressors try what only root may.
stress() {
  local folder
  folder=$(mktemp -d) && chmod 777 "$folder" || return
  (cd "$folder" && setpriv --reuid=65534 --regid=65534 --clear-groups \
    stress-ng --temp-path "$folder" --metrics --yaml metrics "$@" >&2 || exit
  awk '/bogo-ops-per-second-real-time:/ {print $2; exit}' metrics)
  local status=$?
  rm -rf "$folder"
  return $status
}

# disk OPTION...   One run of fio on the second disk, its line of fields.
disk() {
  fio --name=bench --filename="$scratch" --direct="$direct" --invalidate=0 --ioengine=libaio --thread --size=256m \
    --runtime=2 --time_based --output-format=terse --terse-version=3 "$@"
}

# shared COMMAND...   In a folder of the host that the machine shares.
shared() {
  local turn
  case $share in
    virtiofs) for ((turn = 0; turn < 300; turn++)); do mountpoint -q /shared && break; sleep 0.1; done ;;
    9p)
      mkdir -p /shared
      mountpoint -q /shared || mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576 shared /shared || return
      ;;
    *) echo "it shares no folder" >&2; return 1 ;;
  esac
  (cd /shared && "$@")
}

# repository   Makes /root/repository, once: the C library's headers.
repository() {
  [ -e /root/repository ] && return
  git init -q /root/repository && cp -r /usr/include /root/repository &&
    git -C /root/repository add -A &&
    git -C /root/repository -c user.name=bench -c user.email=bench@localhost commit -q -m headers
}

# network OPTION...   Mbit/s that arrived.
network() {
  if ! iperf3 -c "$host" -p "$port" --connect-timeout 5000 -t 3 -f m "$@" >network.log 2>&1; then
    tail -n 1 network.log >&2
    return 1
  fi
  awk '/receiver/ {for (i = 2; i <= NF; i++) if ($i ~ /bits\/sec/) print $(i - 1)}' network.log
}

if [ "$machine" = guest ]; then
  dmesg -n 1
  timeout 60 systemctl is-system-running --wait >/dev/null 2>&1
fi
echo "@clock $EPOCHREALTIME"
. ./plan
echo "@clock $EPOCHREALTIME"
echo "@end"
[ "$machine" != guest ] || poweroff -f -f
