import Foundation
import HostSystem
import Testing

struct HostResourcesTests {
  let root = TemporaryFolder()
  let meminfo = "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    6000000 kB\n"

  @Test func thisHostHasProcessorsAndMemory() throws {
    #expect(HostResources.processorCount >= 1)
    let limit = try #require(HostResources.memoryLimit)
    let available = try #require(HostResources.availableMemory)
    #expect(available <= limit)
    #expect(limit > 64 << 20)
  }

  @Test func withoutControlGroupsTheHostIsTheLimit() throws {
    try root.put(meminfo, at: "proc/meminfo")
    let memory = HostResources.memory(fileSystemRoot: root.path)
    #expect(memory.limit == 8_000_000 * 1024)
    #expect(memory.available == 6_000_000 * 1024)
  }

  @Test func theTightestGroupOfVersion2Counts() throws {
    try root.put(meminfo, at: "proc/meminfo")
    try root.put("0::/user.slice/session\n", at: "proc/self/cgroup")
    try root.put("max\n", at: "sys/fs/cgroup/user.slice/session/memory.max")
    try root.put("2000000000\n", at: "sys/fs/cgroup/user.slice/memory.max")
    try root.put("1500000000\n", at: "sys/fs/cgroup/user.slice/memory.current")
    try root.put("anon 1\ninactive_file 500000000\n", at: "sys/fs/cgroup/user.slice/memory.stat")
    let memory = HostResources.memory(fileSystemRoot: root.path)
    #expect(memory.limit == 2_000_000_000)
    #expect(memory.available == 1_000_000_000)
  }

  @Test func version1Counts() throws {
    try root.put(meminfo, at: "proc/meminfo")
    try root.put("9:cpu,cpuacct:/a\n4:memory:/a\n", at: "proc/self/cgroup")
    try root.put("1000000\n", at: "sys/fs/cgroup/memory/a/memory.limit_in_bytes")
    try root.put("2000000\n", at: "sys/fs/cgroup/memory/a/memory.usage_in_bytes")
    let memory = HostResources.memory(fileSystemRoot: root.path)
    #expect(memory.limit == 1_000_000)
    #expect(memory.available == 0)
  }

  @Test func whatHasEndedIsntPinned() throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["true"]
    try process.run()
    process.waitUntilExit()
    let refusal = #expect(throws: HostError.self) {
      try HostResources.pin(to: [0], process: process.processIdentifier)
    }
    #expect(refusal?.code == ESRCH)
  }

  @Test func aHostThatSaysNothingIsUnknown() {
    let memory = HostResources.memory(fileSystemRoot: root.path)
    #expect(memory.limit == nil && memory.available == nil)
  }
}
