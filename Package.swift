// swift-tools-version: 6.2
import PackageDescription

/// Every room is compiled with the same rules: warnings are errors.
let rules: [SwiftSetting] = [
  .swiftLanguageMode(.v5),
  .treatAllWarnings(as: .error),
]

func room(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: rules)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: name + "Tests", dependencies: [.init(stringLiteral: name)] + dependencies, swiftSettings: rules)
}

/// The program brings Swift's libraries in itself, at fixed addresses: it runs where there is no Swift, and starts quicker.
let selfContained: [LinkerSetting] = [
  .unsafeFlags([
    "-static-stdlib", "-lFoundation", "-lCoreFoundation", "-lFoundationEssentials", "-lFoundationInternationalization",
    "-l_FoundationCShims", "-l_FoundationCollections", "-l_FoundationICU", "-lswiftSynchronization", "-lswiftDispatch",
    "-ldispatch", "-lBlocksRuntime", "-lswift_RegexParser", "-Xlinker", "--gc-sections",
  ])
]

let package = Package(
  name: "Yadori",
  products: [
    .executable(name: "yadori", targets: ["yadori"]),
    .library(name: "Yadori", targets: ["Yadori"]),
    // Rooms below the library, for the fuzzers, which are a package of their own.
    .library(name: "YadoriRooms", targets: ["Board", "Virtio", "Storage", "Network", "Console", "Bus", "HostSystem"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
  ],
  targets: [
    .executableTarget(
      name: "yadori", dependencies: ["Commands"], swiftSettings: rules, linkerSettings: selfContained),
    room(
      "Commands",
      [
        "Supervisor", "Yadori", "Images", "Board", "Translation", "Storage", "Network", "Console", "HostSystem",
        "RISCV",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
      ]),
    room(
      "Supervisor",
      ["Yadori", "Images", "Console", "HostSystem", "CHost", .product(name: "GRDB", package: "GRDB.swift")]),
    room("Images", ["Storage", "CCrypto", "CZlib", "CZstd", "CLZMA"]),
    room(
      "Yadori",
      [
        "Board", "Translation", "Virtio", "Storage", "Network", "Console", "Hart", "RISCV", "Bus", "HostSystem",
        "CZstd",
      ]),
    room(
      "Board",
      [
        "Virtio", "Storage", "Network", "Console", "Translation", "Hart", "RISCV", "Bus", "HostSystem", "CHost",
        "CZlib",
      ]),
    room("Virtio", ["Storage", "Network", "Console", "Bus", "HostSystem"]),
    room("Storage", ["HostSystem", "CHost", "CZlib", "CZstd"]),
    room("Network", ["HostSystem", "CSlirp"]),
    room("Console", ["HostSystem"]),
    room("Translation", ["Hart", "RISCV", "HostSystem", "CHost"]),
    room("Hart", ["RISCV", "Bus", "HostSystem"]),
    room("RISCV"),
    room("Bus", ["HostSystem"]),
    room("HostSystem", ["CHost"]),
    .target(name: "CHost"),
    .systemLibrary(name: "CSlirp", providers: [.apt(["libslirp-dev"])]),
    .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(name: "CLZMA", pkgConfig: "liblzma", providers: [.apt(["liblzma-dev"])]),
    tests("RISCV", []),
    tests("Hart", ["RISCV", "Bus"]),
    tests("Translation", ["Hart", "RISCV", "Bus", "CHost", "CountingSupport"]),
    // Counts allocations and reference counting of a thread.
    .target(name: "CountingSupport", path: "Tests/CountingSupport"),
    tests("Bus", ["HostSystem"]),
    tests("HostSystem", []),
    tests("Storage", ["HostSystem", "storage-torture"]),
    // Writes to a disk until it is killed; the crash tests run it.
    .executableTarget(
      name: "storage-torture", dependencies: ["Storage"], path: "Tests/StorageTorture", swiftSettings: rules),
    tests("Network", ["HostSystem"]),
    tests("Console", ["HostSystem"]),
    tests("Virtio", ["Bus", "HostSystem", "Storage", "Network", "Console"]),
    tests("Board", ["Translation", "Hart", "RISCV", "Bus", "HostSystem", "Virtio", "Console"]),
    tests("Images", ["HostSystem", "Storage", "HTTPTestServer"]),
    .executableTarget(name: "example-boot", dependencies: ["Yadori"], path: "Examples/Boot", swiftSettings: rules),
    .executableTarget(name: "example-fork", dependencies: ["Yadori"], path: "Examples/Fork", swiftSettings: rules),
    tests("Yadori", ["Translation", "Console", "RISCV", "CHost", "HostSystem", "example-boot", "example-fork"]),
    tests("Supervisor", ["Yadori", "Images", "HostSystem"]),
    // They run the program; a dependency would have them linked as it is.
    tests("Commands", ["CHost", "HostSystem", "Images", "Storage", "HTTPTestServer", "confinement-probe"]),
    // Gives up what a machine's process does, and tries what a guest would that owned it.
    .executableTarget(
      name: "confinement-probe", dependencies: ["Supervisor", "Yadori", "HostSystem"], path: "Tests/ConfinementProbe",
      swiftSettings: rules),
    // Answers downloads on the loopback address; the tests of Images and Commands start it.
    .target(name: "HTTPTestServer", path: "Tests/HTTPTestServer", swiftSettings: rules),
  ]
)
