/// The accounts, with what is asked of them for every request: whose there are, how many each tenant has, and where one is bound.
struct AccountTable: Hashable, Sendable {
    private var accounts: [Account.Key: Account] = [:]
    /// Of tenants that have any.
    private var perTenant: [Tenant: Int] = [:]
    /// The targets to which an account is bound, in either direction.
    private var bound: [Account.Key: Set<TargetID>] = [:]

    var count: Int { accounts.count }
    var isEmpty: Bool { accounts.isEmpty }
    var values: Dictionary<Account.Key, Account>.Values { accounts.values }

    subscript(_ key: Account.Key) -> Account? {
        get { accounts[key] }
        set {
            let old = accounts.updateValue(newValue, at: key)
            guard (old == nil) != (newValue == nil) else { return }
            let count = perTenant[key.tenant, default: 0] + (newValue == nil ? -1 : 1)
            perTenant[key.tenant] = count == 0 ? nil : count
        }
    }

    /// How many a tenant has.
    func count(of tenant: Tenant) -> Int { perTenant[tenant, default: 0] }

    /// The tenant of this name, if it has an account.
    func tenant(named name: Tenant) -> Tenant? { perTenant.index(forKey: name).map { perTenant[$0].key } }

    /// Those of these tenants alone.
    func seen(by tenants: Set<Tenant>) -> AccountTable {
        var seen = AccountTable()
        seen.accounts = accounts.filter { tenants.contains($0.key.tenant) }
        seen.perTenant = perTenant.filter { tenants.contains($0.key) }
        seen.bound = bound.filter { tenants.contains($0.key.tenant) }
        return seen
    }

    // MARK: Where they are bound

    func targets(of key: Account.Key) -> Set<TargetID> { bound[key] ?? [] }

    /// What is bound to a target has changed.
    /// - Parameters:
    ///   - old: nil: the target is new
    ///   - new: nil: it is gone
    mutating func rebind(_ id: TargetID, of tenant: Tenant, from old: AccountBindings?, to new: AccountBindings?) {
        let (before, now) = (old?.names ?? [], new?.names ?? [])
        for name in before.subtracting(now) {
            let key = Account.Key(tenant: tenant, name: name)
            bound[key]?.remove(id)
            if bound[key]?.isEmpty == true { bound[key] = nil }
        }
        for name in now.subtracting(before) { bound[Account.Key(tenant: tenant, name: name), default: []].insert(id) }
    }
}

extension Dictionary {
    /// - Returns: what was there
    fileprivate mutating func updateValue(_ value: Value?, at key: Key) -> Value? {
        if let value { updateValue(value, forKey: key) } else { removeValue(forKey: key) }
    }
}
