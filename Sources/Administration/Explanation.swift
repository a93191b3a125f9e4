import Access
import Bytes
import ISCSI
import Management
import Model
import SCSI

/// Whether an initiator would be let in, and why: what the function that decides on logins says.
struct Explanation {
    private let decision: AccessDecision
    /// By which it has authenticated, and was asked to.
    private let account: AccountName?
    /// Through which alone the target is reached; none: through all.
    private let portals: [PortalAddress]

    init(_ question: AdminRequest.AccessQuestion, _ configuration: Configuration) throws(Refusal) {
        let target = try Administrator.target(question.tid, configuration)
        let initiator: ISCSIName
        do throws(ISCSIName.NameError) { initiator = try ISCSIName(question.name) } catch {
            throw Refusal(.invalidRequest, "“\(escaped(question.name))” is no initiator name")
        }
        guard let address = NetworkAddress(parsing: question.address) else {
            throw Refusal(.invalidRequest, "“\(escaped(question.address))” is no IPv4 or IPv6 address")
        }
        var account: AccountName?
        if let user = question.user { account = try configured { () throws(ConfigurationError) in try AccountName(user) } }
        decision = decideLogin(configuration, targetName: target.name, initiator: initiator, address: address, account: account, isMutual: true,
            channel: question.overTLS ? .tls(.initiator(initiator)) : .clear)
        self.account = target.accounts.isEmpty ? nil : account
        portals = configuration.tenancy.tenants[target.tenant]?.portals ?? []
    }

    private var rules: [AccessRule] {
        if case .admitted(let rules) = decision { rules } else { [] }
    }

    private var reason: String? {
        if case .refused(let refusal) = decision { refusal.description } else { nil }
    }

    func rendered() -> [UInt8] {
        var lines = [reason.map { "refused: \($0)" } ?? "admitted"]
        lines += rules.map { rule in
            let kind = if case .address = rule { "address" } else { "name" }
            return "    by the \(kind) rule \(rule.spelling)" + (rule.mask == .all ? "" : " (LUNs \(rule.mask))")
        }
        if reason == nil, !portals.isEmpty { lines.append("    through the portals \(portals.map(\.description).joined(separator: ", "))") }
        if reason == nil, let account { lines.append("    by the account \(account)") }
        if let mask = decision.mask, mask != .all { lines.append("    shown LUNs: \(mask)") }
        return Array((lines.joined(separator: "\n") + "\n").utf8)
    }

    func write(to writer: inout JSONWriter) {
        writer.object("access") { writer in
            writer.field("admitted", decision.isAdmitted)
            writer.field("reason", reason)
            writer.objects("rules", rules) { writer, rule in
                switch rule {
                case .address(let rule): writer.field("address", rule.spelling)
                case .name(let rule): writer.field("name", rule.spelling)
                }
                writer.field("luns", rule.mask.description)
            }
            writer.strings("portals", portals.map(\.description))
            writer.field("luns", decision.mask?.description)
            writer.field("account", decision.isAdmitted ? account?.description : nil)
        }
    }
}
