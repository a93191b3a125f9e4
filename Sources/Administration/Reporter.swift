import Access
import Bytes
import ISCSI
import Management
import Model
import SCSI

/// Makes tgt's reports from the configuration and what is going on.
struct Reporter {
    let configuration: Configuration
    let view: RuntimeView

    /// The text for a request that only asks; nil for others.
    func report(_ action: AdminRequest.Action) throws(Refusal) -> [UInt8]? {
        switch action {
        case .showSystem: return system()
        case .showTargets: return TargetReport.render(configuration.sortedTargets.map(report))
        case .showTarget(let tid): return parameters(of: try target(tid))
        case .showConnections(let tid): return SessionReport.renderConnections(view.sessions(of: try target(tid).id).map(report))
        case .showAccounts:
            // Whose they are, where they could be somebody else's.
            let isMixed = Set(configuration.accounts.map(\.tenant)).count > 1
            return AccountsReport.renderList(configuration.accounts.reversed().map { account in
                account.name.description + (isMixed && account.tenant != .default ? " (tenant \(account.tenant.name))" : "")
                    + (account.secrets.count > 1 ? " (two secrets)" : "")
            })
        case .showPortals:
            return renderPortals(configuration.portals.reversed().map(report))
        case .showDrivers: return renderDrivers(targets: configuration.sortedTargets.map { ($0.id.rawValue, $0.name.spelling) })
        case .showPenalties: return renderPenalties(view.penalties?.waiting() ?? [])
        case .explainAccess(let question): return try Explanation(question, configuration).rendered()
        case .statSystem, .statTarget, .statLogicalUnit: return CommandStatistics.render(try statistics(for: action))
        case .statSession(let tid, let sid):
            let session = try session(tid, sid)
            return CommandStatistics.render(try statistics(for: action)) + [UInt8(ascii: "\n")] + ConnectionStatistics.render(traffic(session))
        case .statConnections(let tid, let sid): return ConnectionStatistics.render(traffic(try session(tid, sid)))
        default: return nil
        }
    }

    /// The rows of an `--op stat` about commands.
    func statistics(for action: AdminRequest.Action) throws(Refusal) -> [CommandStatistics] {
        switch action {
        case .statSystem: return statistics(configuration.sortedTargets.flatMap(pairs))
        case .statTarget(let tid): return statistics(pairs(try target(tid)))
        case .statLogicalUnit(let tid, let lun):
            let target = try target(tid)
            guard let lun = Int(exactly: lun), target.logicalUnits[lun] != nil else {
                throw Refusal(.noLogicalUnit, "target \(tid) has no logical unit \(lun)")
            }
            return statistics(pairs(target).filter { $0.key.lun == lun })
        case .statSession(let tid, let sid):
            let session = try session(tid, sid)
            let units = configuration.targets[session.target]?.sortedLogicalUnits ?? []
            return statistics(units.reversed().map { ($0.key, session.tsih) })
        default: return []
        }
    }

    func session(_ tid: Int32, _ sid: UInt64) throws(Refusal) -> RuntimeView.Session {
        let session = TargetID(rawValue: tid).flatMap { id in view.sessions(of: id).first { UInt64($0.tsih) == sid } }
        guard let session else { throw Refusal(.noSession, "target \(tid) has no session \(sid)") }
        return session
    }

    private func target(_ tid: Int32) throws(Refusal) -> TargetConfiguration { try Administrator.target(tid, configuration) }

    private func system() -> [UInt8] {
        var report = SystemReport(
            state: configuration.state.rawValue, isDebugging: configuration.isDebugging,
            backingStores: [("null", false), ("rdwr", true)], deviceTypes: ["disk", "controller"])
        report.accounts = accounts(configuration.discoveryAccounts)
        if let penalties = view.penalties {
            report.penalties = [
                ("sources-waiting", String(penalties.waiting().count)), ("sources-remembered", String(penalties.remembered)),
                ("refused-connections", String(penalties.refusedConnections)), ("refused-answers", String(penalties.refusedAnswers)),
            ]
        }
        report.limits = view.limits
        report.hindrance = view.hindrance
        if let audit = view.audit {
            report.audit = [("directory", audit.directory)] + (audit.trouble.map { [("trouble", $0)] } ?? []) + (audit.networkTrouble.map { [("network-trouble", $0)] } ?? [])
        }
        return report.rendered()
    }

    private func report(_ target: TargetConfiguration) -> TargetReport {
        var report = TargetReport(
            tid: target.id.rawValue, name: target.name.spelling, state: target.state.rawValue,
            nopInterval: target.nopInterval, nopCount: target.nopCount)
        report.sessions = view.sessions(of: target.id).map(self.report)
        report.logicalUnits = target.sortedLogicalUnits.map { self.report($0, target) }
        report.accounts = accounts(target.accounts)
        report.rules = (target.addressRules.map { ($0.spelling, $0.mask) } + target.nameRules.map { ($0.spelling, $0.mask) })
            .map { $1 == .all ? $0 : "\($0) (LUNs \($1))" }
        return report
    }

    private func report(_ session: RuntimeView.Session) -> SessionReport {
        var report = SessionReport(
            tsih: session.tsih, initiatorName: session.initiatorName.spelling, alias: session.initiatorAlias.map { escaped($0) },
            connections: session.connections.map { SessionReport.Connection(cid: $0.cid, address: $0.address.description) })
        report.authentication = session.authentication.map {
            "\($0.account), CHAP with \($0.algorithm)\($0.isMutual ? ", mutual" : "")\($0.isMD5InClear ? ", in clear" : "")"
        }
        report.protection = session.protection?.description
        return report
    }

    private func report(_ unit: LogicalUnitConfiguration, _ target: TargetConfiguration) -> LogicalUnitReport {
        let identity = unit.identity(configuration.identitySource, targetName: target.name)
        let condition = view.logicalUnits[unit.key] ?? RuntimeView.LogicalUnitCondition()
        var report = LogicalUnitReport(
            lun: unit.key.lun, type: unit.deviceType == .disk ? "disk" : "controller", scsiID: identity.scsiID,
            serialNumber: identity.serialNumber, blockLength: unit.deviceType == .disk ? unit.blockLength : 1, storeType: unit.store.kind.rawValue)
        report.byteCount = unit.medium?.byteCount ?? 0
        report.isOnline = unit.isServed
        report.isRemovable = unit.isRemovable
        report.preventsRemoval = condition.preventsRemoval
        report.isReadOnly = unit.isReadOnly
        report.isSoftwareWriteProtected = condition.isSoftwareWriteProtected
        report.isThinProvisioned = unit.isThinProvisioned
        report.storePath = unit.store.path?.bytes
        report.storeFlags = unit.store.flags.text
        report.flushFailed = condition.flushFailed
        return report
    }

    private func accounts(_ bindings: AccountBindings) -> AccountsReport {
        let incoming = bindings.incomingBindings.map { binding in "\(binding.name)" + (binding.initiator.map { " (for \($0.spelling))" } ?? "") }
        return AccountsReport(incoming: incoming, outgoing: bindings.outgoing?.description)
    }

    private func parameters(of target: TargetConfiguration) -> [UInt8] {
        // Only where it is set: tgt knows no such parameter.
        let own = [("RequireMutualCHAP", target.requiresMutualCHAP), ("RequireTLS", target.requiresTLS)].filter(\.1).map { ($0.0, "Yes") }
        return renderParameters([("nop_interval", String(target.nopInterval)), ("nop_count", String(target.nopCount))] + target.parameters.shown + own)
    }

    private func report(_ portal: Portal) -> PortalReport {
        var report = PortalReport(text: portal.description, groupTag: portal.groupTag)
        // The tag stands behind the address.
        report.parameters = portal.parameters.filter { $0.name != "tpgt" }
        let condition = view.portals[portal.endpoint] ?? RuntimeView.PortalCondition()
        if let end = condition.certificateExpires { report.parameters.append(("certificate expires", utcTime(end))) }
        // Only if there is any, and only what has happened.
        let failures = condition.failedHandshakes.filter { $0.count > 0 }
        if portal.tls != nil, !failures.isEmpty { report.parameters.append(("failed handshakes", failures.map { "\($0.cause) \($0.count)" }.joined(separator: ", "))) }
        report.isOpen = condition.isOpen
        return report
    }

    /// Every logical unit of a target with every session: by LUN, then in the order of the logins.
    private func pairs(_ target: TargetConfiguration) -> [(key: LogicalUnitKey, tsih: UInt16)] {
        let sessions = view.sessions(of: target.id)
        return target.sortedLogicalUnits.flatMap { unit in sessions.map { (unit.key, $0.tsih) } }
    }

    private func statistics(_ pairs: [(key: LogicalUnitKey, tsih: UInt16)]) -> [CommandStatistics] {
        struct Nexus: Hashable {
            let key: LogicalUnitKey
            let tsih: UInt16
        }
        let known = Dictionary(view.statistics.map { (Nexus(key: $0.key, tsih: $0.tsih), $0) }, uniquingKeysWith: { first, _ in first })
        return pairs.map { pair in
            let row = known[Nexus(key: pair.key, tsih: pair.tsih)] ?? RuntimeView.Statistics(key: pair.key, tsih: pair.tsih)
            func count(_ count: RuntimeView.Count) -> CommandStatistics.Count { (count.bytes, count.commands) }
            return CommandStatistics(
                tid: pair.key.target.rawValue, lun: pair.key.lun, tsih: pair.tsih,
                readSubmitted: count(row.readSubmitted), readDone: count(row.readDone),
                writeSubmitted: count(row.writeSubmitted), writeDone: count(row.writeDone), errors: row.errors)
        }
    }

    func traffic(_ session: RuntimeView.Session) -> [ConnectionStatistics] {
        session.connections.map { connection in
            var row = ConnectionStatistics(tsih: session.tsih, cid: connection.cid)
            row.receivedOctets = connection.counters.receivedOctets
            row.sentOctets = connection.counters.sentOctets
            row.dataOutPDUs = connection.counters.dataOutPDUs
            row.dataInPDUs = connection.counters.dataInPDUs
            row.commandPDUs = connection.counters.commandPDUs
            row.responsePDUs = connection.counters.responsePDUs
            return row
        }
    }
}
