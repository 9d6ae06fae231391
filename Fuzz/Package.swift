// swift-tools-version: 6.2
import PackageDescription

// Built by Fuzz/run with libFuzzer, which brings `main`. Apart from the main package, so that its builds cost nothing
// more for it.
let rules: [SwiftSetting] = [
  .swiftLanguageMode(.v5),
  .treatAllWarnings(as: .error),
]

func fuzzer(_ name: String) -> Target {
  .executableTarget(
    name: "fuzz-" + name, dependencies: ["FuzzSupport", .product(name: "YadoriRooms", package: "Yadori")],
    swiftSettings: rules)
}

let package = Package(
  name: "Fuzz",
  dependencies: [.package(name: "Yadori", path: "..")],
  targets: [
    .target(name: "FuzzSupport", swiftSettings: rules),
    fuzzer("qcow2"),
    fuzzer("virtqueue"),
    fuzzer("elf"),
    fuzzer("devicetree"),
  ]
)
