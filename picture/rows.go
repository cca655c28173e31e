package picture

// Row is one feature of the picture.
type Row struct {
	// Number is the row's number in the picture, from 1.
	Number int `json:"number"`
	// Feature is its name: what proofs and `emerald verify` call it.
	Feature string `json:"feature"`
	// Batteries are those that carry it. The word "platform" is the machine's
	// own process.
	Batteries []string `json:"batteries"`
	// Gets is what the user gets.
	Gets string `json:"gets"`
	// ToCome is the part of Gets that no proof shows yet though there are
	// proofs; "" when what the proofs show is all of it.
	ToCome string `json:"toCome,omitempty"`
}

// platform stands in Row.Batteries for what is no battery.
const platform = "platform"

// Group is a part of the picture that is shown together.
type Group struct {
	Name string
	Rows []Row
}

// Groups is the whole picture: 43 features in the order they are shown.
var Groups = []Group{
	{"Machines and clusters", []Row{
		{1, "cloud hosting", of(platform), "the same on any Linux machine and on any conformant cluster", "a cluster that Emerald did not boot"},
		{2, "high availability, multi-zone", of(platform), "three or five servers over zones, without a migration from one", ""},
		{34, "fault domains", of(platform), "zones and regions modelled, spread by default, drilled", ""},
		{24, "upgrades (node and cluster)", of("upgrades"), "one version of everything, rehearsed, rolled back by itself", ""},
		{25, "autoscaling", of("autoscale"), "apps and machines follow the load, down to zero", ""},
		{26, "capacity planning", of("capacity"), "headroom, days until full, what fits when a zone is gone", ""},
		{15, "multiple clusters", of("clusters"), "many clusters under one login and one view", ""},
		{16, "automated cluster provisioning", of("clusters"), "a Cluster object in, a kubeconfig out", ""},
		{35, "cluster federation", of("federation"), "one app over clusters by policy, with failover", ""},
		{36, "multi-cluster ingress", of("federation"), "one host name over clusters, the nearest healthy one answers", ""},
	}},
	{"Network", []Row{
		{6, "DNS", of("dns"), "cluster DNS, the platform's own zone, records at providers", ""},
		{17, "API gateways", of("gateway"), "Gateway API, keys, tokens, rate limits, quotas, a firewall", "keys, tokens, rate limits, quotas, a firewall"},
		{4, "load balancing", of("balancer"), "an address for every Service that asks, by ARP, NDP or BGP", ""},
		{18, "service mesh", of("mesh"), "encryption and identity between pods without sidecars", ""},
		{43, "micro-segmentation", of("segmentation"), "network policies, default deny per tenant, a flow log", ""},
		{30, "private VPC networking", of("vpc"), "isolated networks with overlapping ranges, and peering", ""},
		{31, "private DNS", of("dns"), "zones seen only inside one network or tenant", ""},
		{32, "egress gateways", of("egress"), "fixed source addresses, allow-lists by name", ""},
	}},
	{"Delivery", []Row{
		{10, "CI/CD", of("forge", "build", "pipelines", "delivery"), "git push to image to rollout", ""},
		{13, "image registry", of("registry"), "OCI 1.1 with referrers, pull-through cache, quota", ""},
		{19, "serverless, FaaS", of("functions"), "source in, URL or event trigger out, scale to zero", ""},
		{29, "curated service catalog", of("catalog"), "versions tested together, plans, upgrades, Helm charts too", ""},
	}},
	{"Data", []Row{
		{11, "databases and brokers", of("catalog"), "Postgres, MariaDB, Redis, RabbitMQ, NATS, bound into apps", ""},
		{12, "file servers and blob storage", of("objects", "files"), "S3 buckets and shared volumes", ""},
		{14, "persistent storage", of("volumes"), "volumes that survive pods, grow, snapshot, clone", ""},
		{41, "multiple storage classes, persistent and ephemeral", of("volumes"), "standard, encrypted, memory, scratch, shared, replicated", ""},
		{28, "backups", of("backup"), "cluster, volumes and databases to S3, with restore drills", ""},
	}},
	{"Security", []Row{
		{7, "TLS certificates", of("certs"), "certificates on every route by themselves, renewed live", ""},
		{33, "public key infrastructure", of("certs"), "root, intermediates, ACME, workload identities, SSH", ""},
		{5, "secrets management", of("secrets"), "encrypted at rest, rotated, sealed for git, synced", ""},
		{3, "single sign-on", of("identity"), "one login for kubectl, console, registry, forge and apps", ""},
		{22, "permission management", of("tenants", "identity"), "roles by group, access reviewed and explained, audited", ""},
		{23, "end-to-end encryption", of("network", "mesh", "gateway"), "client to gateway to pod to disk", ""},
		{20, "workload isolation", of("isolation"), "sandboxes, user namespaces, restricted by default", ""},
		{39, "vulnerability scanning", of("scan"), "every image scanned at push and daily, gated", ""},
		{40, "image provenance", of("provenance"), "signed, with provenance, enforced at admission", ""},
		{42, "policy enforcement", of("policy"), "curated policies: warn, enforce, except, report", ""},
	}},
	{"Tenants", []Row{
		{21, "multitenancy", of("tenants"), "namespaces, members, quota, network and registry of their own", ""},
		{37, "resource quotas and defaults", of("tenants"), "quotas, limits and sane defaults per plan", ""},
		{38, "usage metering and reporting", of("metering"), "who used what, at which price", ""},
	}},
	{"Sight", []Row{
		{8, "logs", of("journal"), "every pod's logs kept, searched, followed", ""},
		{9, "metrics", of("metrics"), "metrics API, PromQL, monitors, rules, remote-write", ""},
		{27, "observability", of("traces", "alerts", "console"), "traces joined to logs and metrics, dashboards, alerts", ""},
	}},
}

func of(batteries ...string) []string { return batteries }

// Rows returns all rows in the order they are shown.
func Rows() []Row {
	var rows []Row
	for _, g := range Groups {
		rows = append(rows, g.Rows...)
	}
	return rows
}
