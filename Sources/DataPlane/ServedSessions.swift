import SCSI
import Target

/// The sessions that reactors have, by what is asked of them: what a login asks costs the same however many there are.
struct ServedSessions {
    struct Served {
        let beginning: SessionBeginning
        let reactor: Int
    }

    /// Of a nexus there is one session at a time (RFC 7143 §6.3.5).
    private struct Nexus: Hashable {
        let target: ObjectIdentifier
        let name: NexusName
    }

    private struct Initiator: Hashable {
        let target: ObjectIdentifier
        let name: [UInt8]
    }

    private var all: [NexusID: Served] = [:]
    private var byNexus: [Nexus: NexusID] = [:]
    /// Of each, in the order in which they were entered.
    private var byInitiator: [Initiator: Line<NexusID>] = [:]

    var values: some Collection<Served> { all.values }

    subscript(id: NexusID) -> Served? { all[id] }

    /// Enters a session whose nexus has none.
    mutating func insert(_ beginning: SessionBeginning, on reactor: Int) {
        let id = beginning.nexus
        precondition(session(ofNexusOf: beginning) == nil && all[id] == nil, "a nexus has one session at a time")
        all[id] = Served(beginning: beginning, reactor: reactor)
        byNexus[Self.nexus(of: beginning)] = id
        byInitiator[Self.initiator(of: beginning), default: Line()].append(id)
    }

    mutating func remove(_ id: NexusID) -> Served? {
        guard let served = all.removeValue(forKey: id) else { return nil }
        byNexus[Self.nexus(of: served.beginning)] = nil
        let initiator = Self.initiator(of: served.beginning)
        byInitiator[initiator]?.remove(id)
        if byInitiator[initiator]?.isEmpty == true { byInitiator[initiator] = nil }
        return served
    }

    /// The session that the nexus has whose session this is to be.
    func session(ofNexusOf beginning: SessionBeginning) -> Served? { byNexus[Self.nexus(of: beginning)].flatMap { all[$0] } }

    /// The sessions that its initiator has with its target: the latest, at most `count`.
    func latest(_ count: Int, ofInitiatorOf beginning: SessionBeginning) -> [Served] {
        byInitiator[Self.initiator(of: beginning)].map { $0.last(count).compactMap { all[$0] } } ?? []
    }

    private static func nexus(of beginning: SessionBeginning) -> Nexus { Nexus(target: ObjectIdentifier(beginning.target), name: beginning.name) }
    private static func initiator(of beginning: SessionBeginning) -> Initiator {
        Initiator(target: ObjectIdentifier(beginning.target), name: beginning.name.initiator.name)
    }
}
