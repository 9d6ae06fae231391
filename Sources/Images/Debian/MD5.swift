import Crypto

/// The checksum that dpkg keeps for conffiles. It protects from nothing and isn't used to check anything here.
enum MD5 {
  static func hexadecimal(of bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    let digest = Insecure.MD5.hash(data: bytes)
    return String(decoding: digest.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }
}
