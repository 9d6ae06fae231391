// An Embedded Swift program on the bare machine: arrays, generics, closures, classes and floating point, printed on the
// UART.

import _Volatile

struct UART {
  private let data = VolatileMappedRegister<UInt8>(unsafeBitPattern: 0x1000_0000)
  private let lineStatus = VolatileMappedRegister<UInt8>(unsafeBitPattern: 0x1000_0005)

  func print(_ byte: UInt8) {
    while lineStatus.load() & 0x20 == 0 {}
    data.store(byte)
  }

  func print(_ text: StaticString) {
    for index in 0..<text.utf8CodeUnitCount { print(text.utf8Start[index]) }
  }

  func print(_ number: Int) {
    var digits: [UInt8] = []
    var rest = number
    repeat {
      digits.append(UInt8(ascii: "0") + UInt8(rest % 10))
      rest /= 10
    } while rest > 0
    for digit in digits.reversed() { print(digit) }
  }
}

final class Sieve {
  private var isComposite: [Bool]

  init(limit: Int) {
    isComposite = Array(repeating: false, count: limit)
    var candidate = 2
    while candidate * candidate < limit {
      if !isComposite[candidate] {
        for multiple in stride(from: candidate * candidate, to: limit, by: candidate) { isComposite[multiple] = true }
      }
      candidate += 1
    }
  }

  var primes: [Int] { isComposite.indices.dropFirst(2).filter { !isComposite[$0] } }
}

@_cdecl("guest_main")
public func guestMain() {
  let uart = UART()
  let primes = Sieve(limit: 100_000).primes
  uart.print("primes below 100000: ")
  uart.print(primes.count)
  uart.print(", the last ")
  uart.print(primes.last ?? 0)
  let sum = primes.map { 1 / Double($0) }.reduce(0, +)
  uart.print(", sum of reciprocals in millionths ")
  uart.print(Int(sum * 1_000_000))
  uart.print("\n")
}
