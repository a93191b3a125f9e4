import Foundation

/// Processor time of processes, by /proc.
enum Processes {
    /// Seconds that these and their children have run.
    static func cpuSeconds(of roots: [Int32]) -> Double {
        var parents: [Int32: Int32] = [:], ticks: [Int32: Int] = [:]
        for name in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
            guard let pid = Int32(name), let stat = FileManager.default.contents(atPath: "/proc/\(name)/stat") else { continue }
            // Behind the name: state, parent, … utime (14th field), stime (proc(5)).
            let fields = String(decoding: stat, as: UTF8.self).split(separator: ")").last?.split(separator: " ") ?? []
            guard fields.count > 12, let parent = Int32(fields[1]), let user = Int(fields[11]), let system = Int(fields[12]) else { continue }
            (parents[pid], ticks[pid]) = (parent, user + system)
        }
        func isMeant(_ pid: Int32) -> Bool { roots.contains(pid) || parents[pid].map(isMeant) ?? false }
        return Double(ticks.filter { isMeant($0.key) }.values.reduce(0, +)) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }
}
