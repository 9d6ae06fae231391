import CHost
import HostSystem

/// What generated code asks of the host's processor.
enum HostInstructions {
  /// Whether there is AES-NI. Without, the interpreter executes the guest's instructions for AES.
  static let hasAES = chost_has_aes() != 0

  /// Throws where the processor lacks BMI1, BMI2, LZCNT, POPCNT, FMA or PCLMULQDQ (all in x86-64-v3: Haswell, Zen and later).
  static func check() throws {
    guard chost_has_x86_64_v3() != 0 else {
      throw HostError(
        code: 0, message: "the translator needs a processor with x86-64-v3 (2013 or later); use --engine interpreter")
    }
  }
}
