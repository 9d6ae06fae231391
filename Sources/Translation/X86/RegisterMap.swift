/// Which guest registers live in which host registers at one place of a block, while it is translated. At a block's borders
/// it is always the same, `canonical`; within a block those that are used most take the places of others.
struct RegisterMap {
  /// By number of the host register: the guest register it holds, or `none`.
  private(set) var guests = InlineArray<16, UInt8>(repeating: Self.none)
  /// By guest register (`remaining` and `pageBase` included): the number of the host register that holds it, or `none`.
  private(set) var hosts = InlineArray<34, UInt8>(repeating: Self.none)
  /// Guest registers whose place in memory isn't up to date, a bit each.
  var dirty: UInt64 = 0

  /// It is as `canonical` (apart from what is dirty). Only set while nothing has moved.
  private(set) var isCanonical = false

  static let none: UInt8 = 255
  /// Stands for the count of instructions that are left, which can make room as a guest register can.
  static let remaining: UInt8 = 32

  /// The same for the address of the page that is executed. It is never dirty.
  static let pageBase: UInt8 = 33

  /// The host registers that guest registers may live in: those of `PinnedRegisters.all`, those of the page's address and
  /// of the count, and rdx, which is an access group's where a block has one.
  static var places: InlineArray<12, UInt8> {
    @inline(__always) get { [15, 3, 6, 13, 7, 8, 9, 10, 11, 14, 12, 2] }
  }

  /// Every pinned register in its place, and changed.
  static let canonical: RegisterMap = {
    var map = RegisterMap()
    for (guest, host) in PinnedRegisters.all { map.put(guest, into: host.number) }
    map.put(remaining, into: PinnedRegisters.remaining.number)
    map.put(pageBase, into: PinnedRegisters.pageBase.number)
    map.dirty = ~(1 << UInt64(pageBase))
    map.isCanonical = true
    return map
  }()

  /// Where `guest` lives at a block's borders.
  @inline(__always)
  static func home(_ guest: UInt8) -> UInt8 {
    switch guest {
    case remaining: PinnedRegisters.remaining.number
    case pageBase: PinnedRegisters.pageBase.number
    default: PinnedRegisters.host(guest)?.number ?? none
    }
  }

  @inline(__always)
  func host(_ guest: UInt8) -> HostRegister? {
    let number = hosts[Int(guest)]
    return number == Self.none ? nil : HostRegister(number)
  }

  func isDirty(_ guest: UInt8) -> Bool { dirty & 1 << UInt64(guest) != 0 }

  mutating func put(_ guest: UInt8, into host: UInt8) {
    guests[Int(host)] = guest
    hosts[Int(guest)] = host
    isCanonical = false
  }

  /// Whether nothing has to be moved for `other`.
  func isSettled(as other: RegisterMap) -> Bool {
    if isCanonical, other.isCanonical { return true }
    let places = Self.places
    for index in places.indices {
      let host = Int(places[index])
      if guests[host] != other.guests[host], other.guests[host] != Self.none || isDirty(guests[host]) { return false }
    }
    return true
  }

  mutating func remove(_ guest: UInt8) {
    guests[Int(hosts[Int(guest)])] = Self.none
    hosts[Int(guest)] = Self.none
    isCanonical = false
  }
}

extension Assembler {
  private func place(_ guest: UInt8) -> HostAddress {
    switch guest {
    case RegisterMap.remaining: StateLayout.remaining
    case RegisterMap.pageBase: StateLayout.pageBase
    default: StateLayout.integer(guest)
    }
  }

  mutating func spill(_ guest: UInt8, from host: UInt8) { store(place(guest), HostRegister(host)) }
  mutating func fill(_ host: UInt8, with guest: UInt8) { load(HostRegister(host), place(guest)) }

  /// Makes `to` of `from`, by way of memory. Changes no flags. `pending`: its place in `from` doesn't hold it yet.
  mutating func convert(_ from: RegisterMap, to: RegisterMap, pending: UInt8 = RegisterMap.none) {
    if from.isCanonical, to.isCanonical { return }
    let places = RegisterMap.places
    for index in places.indices {
      let host = places[index]
      let guest = from.guests[Int(host)]
      if guest == RegisterMap.none || guest == pending || to.guests[Int(host)] == guest { continue }
      if from.isDirty(guest) { spill(guest, from: host) }
    }
    for index in places.indices {
      let host = places[index]
      let guest = to.guests[Int(host)]
      if guest == RegisterMap.none || from.guests[Int(host)] == guest && guest != pending { continue }
      fill(host, with: guest)
    }
  }

  /// Makes `map` of the canonical one, where memory is up to date: after a call of a slow path.
  mutating func restore(_ map: RegisterMap) {
    if map.isCanonical { return }
    let places = RegisterMap.places
    for index in places.indices {
      let host = places[index]
      let guest = map.guests[Int(host)]
      if guest != RegisterMap.none, RegisterMap.home(guest) != host { fill(host, with: guest) }
    }
  }
}
