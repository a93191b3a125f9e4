import Bytes
import ISCSI
import JSON
import Management
import Model

/// Makes reports in JSON, as `JSONSchema` describes them.
struct JSONReporter {
    private let configuration: Configuration
    private let view: RuntimeView
    private let reporter: Reporter

    init(_ reporter: Reporter) {
        configuration = reporter.configuration
        view = reporter.view
        self.reporter = reporter
    }

    /// The document for a request that only asks; nil for others.
    func report(_ action: AdminRequest.Action) throws(Refusal) -> [UInt8]? {
        switch action {
        case .showSystem: return JSONWriter.document(system)
        case .showTargets: return targets(configuration.sortedTargets)
        case .showTarget(let tid): return targets([try Administrator.target(tid, configuration)])
        case .showConnections(let tid): return connections(view.sessions(of: try Administrator.target(tid, configuration).id))
        case .showAccounts:
            return JSONWriter.document { writer in
                writer.objects("accounts", configuration.accounts) { writer, account in
                    writer.field("tenant", account.tenant.name)
                    writer.field("name", account.name.description)
                    writer.field("secrets", account.secrets.count)
                }
            }
        case .showPortals:
            return JSONWriter.document { writer in
                writer.objects("portals", configuration.portals) { writer, portal in
                    writer.field("address", portal.endpoint.address.description)
                    writer.field("port", portal.endpoint.port)
                    writer.field("groupTag", portal.groupTag)
                    write(portal, to: &writer)
                }
            }
        case .showDrivers: return drivers()
        case .showPenalties:
            return JSONWriter.document { writer in
                writer.objects("penalties", view.penalties?.waiting() ?? []) { writer, penalty in
                    writer.field("source", penalty.source)
                    writer.field("secondsLeft", penalty.secondsLeft)
                }
            }
        case .explainAccess(let question):
            let explanation = try Explanation(question, configuration)
            return JSONWriter.document { explanation.write(to: &$0) }
        case .statSystem, .statTarget, .statLogicalUnit:
            let rows = try reporter.statistics(for: action)
            return JSONWriter.document { writer in write(rows, to: &writer) }
        case .statSession(let tid, let sid):
            let session = try reporter.session(tid, sid)
            let rows = try reporter.statistics(for: action)
            return JSONWriter.document { writer in
                write(rows, to: &writer)
                write(reporter.traffic(session), to: &writer)
            }
        case .statConnections(let tid, let sid):
            let session = try reporter.session(tid, sid)
            return JSONWriter.document { writer in write(reporter.traffic(session), to: &writer) }
        default: return nil
        }
    }

    private func system(_ writer: inout JSONWriter) {
        writer.object("system") { writer in
            writer.field("version", version)
            writer.field("state", configuration.state.rawValue)
            writer.field("debug", configuration.isDebugging)
            writer.field("hindrance", view.hindrance)
            writer.strings("backingStores", BackingStore.Kind.allCases.map(\.rawValue))
            writer.strings("deviceTypes", ["disk", "controller"])
            write(configuration.discoveryAccounts, "discoveryAccounts", to: &writer)
            writer.object("limits") { writer in
                for (name, value) in view.limits { writer.field(name, value) }
            }
            if let audit = view.audit {
                writer.object("audit") { writer in
                    writer.field("directory", audit.directory)
                    writer.field("trouble", audit.trouble)
                    writer.field("networkTrouble", audit.networkTrouble)
                }
            }
            guard let penalties = view.penalties else { return }
            writer.object("penalties") { writer in
                writer.field("sourcesWaiting", penalties.waiting().count)
                writer.field("sourcesRemembered", penalties.remembered)
                writer.field("refusedConnections", penalties.refusedConnections)
                writer.field("refusedAnswers", penalties.refusedAnswers)
            }
        }
    }

    private func write(_ portal: Portal, to writer: inout JSONWriter) {
        let condition = view.portals[portal.endpoint] ?? RuntimeView.PortalCondition()
        writer.field("open", condition.isOpen)
        writer.field("advertise", portal.advertised?.description)
        guard let tls = portal.tls else { return writer.field("tls", String?.none) }
        writer.object("tls") { writer in
            writer.field("policy", tls.policy.rawValue)
            writer.field("clientAuth", tls.clientAuthentication.rawValue)
            let files = [
                ("certificate", tls.certificate), ("key", tls.key), ("clientCA", tls.clientCA), ("crl", tls.revocations), ("clientMap", tls.clientMap),
                ("pskFile", tls.preSharedKeys),
            ]
            for (name, path) in files { writer.field(name, path?.text) }
            if let end = condition.certificateExpires { writer.field("certificateExpires", end) } else { writer.field("certificateExpires", String?.none) }
            writer.object("failedHandshakes") { writer in
                for (cause, count) in condition.failedHandshakes { writer.field(cause, count) }
            }
        }
    }

    // MARK: Targets

    private func targets(_ targets: [TargetConfiguration]) -> [UInt8] {
        let sessions = Dictionary(grouping: view.sessions, by: \.target)
        return JSONWriter.document { writer in
            writer.objects("targets", targets) { writer, target in
                writer.field("tid", target.id.rawValue)
                writer.field("name", target.name.spelling)
                writer.field("tenant", target.tenant.name)
                writer.field("state", target.state.rawValue)
                writer.field("nopInterval", target.nopInterval)
                writer.field("nopCount", target.nopCount)
                writer.field("requireMutualCHAP", target.requiresMutualCHAP)
                writer.field("requireTLS", target.requiresTLS)
                writer.object("parameters") { writer in
                    for (name, value) in target.parameters.shown { writer.field(name, value) }
                }
                writer.objects("sessions", sessions[target.id] ?? []) { writer, session in
                    writer.field("sid", session.tsih)
                    write(initiator: session, to: &writer)
                    writer.objects("connections", session.connections) { writer, connection in
                        writer.field("cid", connection.cid)
                        writer.field("address", connection.address.description)
                    }
                }
                writer.objects("logicalUnits", target.sortedLogicalUnits) { write($1, of: target, to: &$0) }
                write(target.accounts, "accounts", to: &writer)
                writer.object("rules") { writer in
                    writer.strings("addresses", target.addressRules.map(\.spelling))
                    writer.strings("names", target.nameRules.map(\.spelling))
                    let masks = target.addressRules.map { (String?.some($0.spelling), String?.none, $0.mask) } + target.nameRules.map { (String?.none, String?.some($0.spelling), $0.mask) }
                    writer.objects("masks", masks.filter { $0.2 != .all }) { writer, row in
                        writer.field("address", row.0)
                        writer.field("name", row.1)
                        writer.field("luns", row.2.description)
                    }
                }
            }
        }
    }

    private func write(_ unit: LogicalUnitConfiguration, of target: TargetConfiguration, to writer: inout JSONWriter) {
        let identity = unit.identity(configuration.identitySource, targetName: target.name)
        let condition = view.logicalUnits[unit.key] ?? RuntimeView.LogicalUnitCondition()
        writer.field("lun", unit.key.lun)
        writer.field("type", unit.deviceType == .disk ? "disk" : "controller")
        writer.object("identity") { writer in
            writer.field("scsiId", identity.scsiID)
            writer.field("serialNumber", identity.serialNumber)
            writer.field("naa", JSONValue.hexadecimal(identity.naa))
        }
        writer.field("vendor", unit.vendor)
        writer.field("product", unit.product)
        writer.field("revision", unit.revision)
        writer.field("size", unit.medium?.byteCount ?? 0)
        writer.field("blockSize", unit.deviceType == .disk ? unit.blockLength : 1)
        writer.field("online", unit.isServed)
        writer.field("removable", unit.isRemovable)
        writer.field("preventRemoval", condition.preventsRemoval)
        writer.field("readOnly", unit.isReadOnly)
        writer.field("softwareWriteProtected", condition.isSoftwareWriteProtected)
        writer.field("thinProvisioning", unit.isThinProvisioned)
        writer.field("flushFailed", condition.flushFailed)
        writer.object("backingStore") { writer in
            writer.field("type", unit.store.kind.rawValue)
            writer.field("path", unit.store.path.map { JSONWriter.text(of: $0.bytes) })
            writer.strings("flags", unit.store.flags.names)
        }
    }

    private func write(_ bindings: AccountBindings, _ name: String, to writer: inout JSONWriter) {
        writer.object(name) { writer in
            writer.strings("incoming", bindings.incoming.map(\.description))
            writer.field("outgoing", bindings.outgoing?.description)
            writer.objects("initiators", bindings.incomingBindings.filter { $0.initiator != nil }) { writer, binding in
                writer.field("account", binding.name.description)
                writer.field("initiator", binding.initiator?.spelling)
            }
        }
    }

    private func drivers() -> [UInt8] {
        JSONWriter.document { writer in
            writer.objects("drivers", ["iscsi"]) { writer, driver in
                writer.field("name", driver)
                writer.field("state", "ready")
                writer.objects("targets", configuration.sortedTargets) { writer, target in
                    writer.field("tid", target.id.rawValue)
                    writer.field("name", target.name.spelling)
                }
            }
        }
    }

    // MARK: Sessions

    private func connections(_ sessions: [RuntimeView.Session]) -> [UInt8] {
        JSONWriter.document { writer in
            writer.objects("connections", sessions.flatMap { session in session.connections.map { (session, $0) } }) { writer, row in
                let (session, connection) = row
                writer.field("tid", session.target.rawValue)
                writer.field("sid", session.tsih)
                writer.field("cid", connection.cid)
                write(initiator: session, to: &writer)
                writer.field("address", connection.address.description)
            }
        }
    }

    private func write(initiator session: RuntimeView.Session, to writer: inout JSONWriter) {
        writer.field("initiatorName", session.initiatorName.spelling)
        writer.field("initiatorAlias", session.initiatorAlias.map { escaped($0, limit: .max) })
        if let authentication = session.authentication {
            writer.object("authentication") { writer in
                writer.field("account", authentication.account.description)
                writer.field("algorithm", authentication.algorithm.description)
                writer.field("mutual", authentication.isMutual)
                writer.field("md5InClear", authentication.isMD5InClear)
            }
        }
        if let protection = session.protection { writer.object("tls") { write(protection, to: &$0) } }
    }

    private func write(_ protection: RuntimeView.Protection, to writer: inout JSONWriter) {
        var (fingerprint, identity): (String?, String?)
        switch protection.shown {
        case .nothing: break
        case .certificate(let shown): fingerprint = JSONValue.hexadecimal(shown)
        case .preSharedKey(let shown): identity = escaped(shown, limit: .max)
        }
        writer.field("version", protection.version)
        writer.field("cipher", protection.cipher)
        writer.field("kernel", protection.isByKernel)
        writer.field("certificate", fingerprint)
        writer.field("pskIdentity", identity)
        writer.field("provenName", protection.provenName?.spelling)
    }

    private func write(_ rows: [CommandStatistics], to writer: inout JSONWriter) {
        writer.objects("statistics", rows) { writer, row in
            writer.field("tid", row.tid)
            writer.field("lun", row.lun)
            writer.field("sid", row.tsih)
            for (name, counts) in [("reads", row.counts[0..<4]), ("writes", row.counts[4..<8])] {
                writer.object(name) { writer in
                    for (name, count) in zip(["submittedBytes", "submittedCommands", "doneBytes", "doneCommands"], counts) { writer.field(name, count) }
                }
            }
            writer.field("errors", row.errors)
        }
    }

    private func write(_ rows: [ConnectionStatistics], to writer: inout JSONWriter) {
        writer.objects("connections", rows) { writer, row in
            writer.field("sid", row.tsih)
            writer.field("cid", row.cid)
            writer.field("receivedOctets", row.receivedOctets)
            writer.field("sentOctets", row.sentOctets)
            writer.field("dataOutPDUs", row.dataOutPDUs)
            writer.field("dataInPDUs", row.dataInPDUs)
            writer.field("commandPDUs", row.commandPDUs)
            writer.field("responsePDUs", row.responsePDUs)
        }
    }
}
