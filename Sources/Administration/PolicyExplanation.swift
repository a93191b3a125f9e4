import Access
import Bytes
import Management
import Model

/// Who may do what, and why: what the function that decides on requests says of each.
public struct PolicyExplanation {
    private let peer: Peer
    /// By permission, in the order of the modes.
    private let decisions: [(permission: Permission, decision: ManagementDecision)]

    /// - Parameter tenant: whose objects it is about; nil: of whatever they may know of
    public init(_ peer: Peer, _ policy: Policy, tenant: Tenant? = nil) {
        self.peer = peer
        decisions = Permission.all.map { permission in
            (permission, decide(peer, ManagementQuestion(permission, tenant.map { .tenant($0) } ?? .list), policy))
        }
    }

    private var who: String {
        let groups = peer.groups.map { escaped($0) }.sorted()
        return "\(peer.user.map { escaped($0) } ?? "(no name)"), uid \(peer.uid)" + (groups.isEmpty ? "" : ", groups \(groups.joined(separator: ", "))")
    }

    public func rendered(_ format: OutputFormat) -> [UInt8] { format == .json ? JSONWriter.document(write) : text() }

    private func text() -> [UInt8] {
        var lines = ["User: \(who)"]
        for (permission, decision) in decisions {
            switch decision {
            case .allowed(let allowance) where allowance.reachesObject:
                let rules = allowance.grants.map(\.description).joined(separator: ", ")
                lines.append("    \(permission): allowed as \(rules)" + (allowance.authenticates ? ", after authentication" : ""))
            case .allowed: lines.append("    \(permission): refused: no grant of this user that may do this is about this tenant")
            case .refused(let refusal): lines.append("    \(permission): refused: \(refusal)")
            }
        }
        return Array((lines.joined(separator: "\n") + "\n").utf8)
    }

    private func write(to writer: inout JSONWriter) {
        writer.object("policy") { writer in
            writer.field("user", peer.user.map { escaped($0) })
            writer.field("uid", peer.uid)
            writer.strings("groups", peer.groups.map { escaped($0) }.sorted())
            writer.objects("decisions", decisions) { writer, row in
                writer.field("mode", row.permission.mode.rawValue)
                writer.field("op", row.permission.operation.rawValue)
                let allowance = row.decision.allowance.flatMap { $0.reachesObject ? $0 : nil }
                writer.field("allowed", allowance != nil)
                if let allowance { writer.field("authenticates", allowance.authenticates) }
                if case .refused(let refusal) = row.decision { writer.field("reason", refusal.description) }
                writer.objects("grants", allowance?.grants ?? []) { writer, grant in
                    writer.field("role", grant.role.name)
                    writer.field("reach", grant.reach.description)
                    if let line = grant.line { writer.field("line", line) }
                }
            }
        }
    }
}
