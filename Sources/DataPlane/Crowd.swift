import Door

/// First in, first out, where any element may leave from the middle. Each step costs the same whatever it holds.
struct Line<Element: Hashable> {
    private var neighbours: [Element: (before: Element?, behind: Element?)] = [:]
    private(set) var first: Element?
    private var last: Element?

    var count: Int { neighbours.count }
    var isEmpty: Bool { neighbours.isEmpty }

    /// Those who came last, at most so many, the very last one first.
    func last(_ count: Int) -> [Element] {
        var found: [Element] = []
        var next = last
        while let element = next, found.count < count {
            found.append(element)
            next = neighbours[element]?.before
        }
        return found
    }

    mutating func append(_ element: Element) {
        precondition(neighbours[element] == nil, "everybody stands in a line once")
        neighbours[element] = (last, nil)
        if let last { neighbours[last]?.behind = element } else { first = element }
        last = element
    }

    mutating func remove(_ element: Element) {
        guard let (before, behind) = neighbours.removeValue(forKey: element) else { return }
        if let before { neighbours[before]?.behind = behind } else { first = behind }
        if let behind { neighbours[behind]?.before = before } else { last = before }
    }
}

/// The connections that nobody has admitted yet, by their sources. Each step costs the same whatever it holds: an attacker who
/// connects often pays more than we do.
struct Crowd {
    /// Of each source, the oldest first.
    private var connections: [Source: Line<ConnectionID>] = [:]
    /// The sources by how many they have, each line in the order in which they came to have so many.
    private var ranks: [Int: Line<Source>] = [:]
    private var most = 0
    private(set) var count = 0

    func count(of source: Source) -> Int { connections[source]?.count ?? 0 }

    mutating func add(_ id: ConnectionID, from source: Source) {
        connections[source, default: Line()].append(id)
        count += 1
        move(source, from: count(of: source) - 1)
    }

    mutating func remove(_ id: ConnectionID, from source: Source) {
        let before = count(of: source)
        connections[source]?.remove(id)
        let now = count(of: source)
        guard now < before else { return }
        if now == 0 { connections[source] = nil }
        count -= 1
        move(source, from: before)
    }

    /// Who makes room for a newcomer: the oldest connection of the source that has most; among several such sources, of the one that
    /// has had so many for the longest time.
    var victim: ConnectionID? { ranks[most]?.first.flatMap { connections[$0]?.first } }

    private mutating func move(_ source: Source, from before: Int) {
        ranks[before]?.remove(source)
        if ranks[before]?.isEmpty == true { ranks[before] = nil }
        let now = count(of: source)
        if now > 0 { ranks[now, default: Line()].append(source) }
        // It was one of those with most, and is now one less or one more.
        most = max(now, ranks[most] == nil ? most - 1 : most)
    }
}
