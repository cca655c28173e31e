package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/emerald-platform/emerald/kit/durable"
	"github.com/emerald-platform/emerald/platform/dirs"
)

// dataVersion is the layout of the data directory. It grows when an older
// program could not read what a newer one wrote.
const dataVersion = 1

// Settings are what a machine keeps from its first start on.
type Settings struct {
	// DataVersion is the layout of the data directory.
	DataVersion int `json:"dataVersion"`
	// Node is the machine's name in the cluster: a DNS label.
	Node string `json:"node"`
	// Address is where other machines reach it.
	Address string `json:"address"`
	// Domain is the platform's own.
	Domain string `json:"domain"`
	// CgroupRoot holds the machine's pods; "" is the host's root.
	CgroupRoot string `json:"cgroupRoot,omitempty"`
}

// errNewer means that a newer version of the program wrote the data.
var errNewer = errors.New("a newer version of emerald wrote it")

func settingsPath(d dirs.Dirs) string { return d.InData("machine.json") }

// LoadSettings returns what [SaveSettings] kept, the zero value when the
// machine was never started.
func LoadSettings(d dirs.Dirs) (Settings, error) {
	raw, err := os.ReadFile(settingsPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, nil
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read the machine's settings: %w", err)
	}
	var s Settings
	if err := json.Unmarshal(raw, &s); err != nil {
		return Settings{}, fmt.Errorf("read the machine's settings %s: %w: mend the file, or start over with: emerald down --wipe", settingsPath(d), err)
	}
	if s.DataVersion > dataVersion {
		return Settings{}, fmt.Errorf("open %s: %w (layout %d, this program knows %d): run that version, or start over with: emerald down --wipe",
			d.Data, errNewer, s.DataVersion, dataVersion)
	}
	return s, nil
}

// Check returns everything that is wrong with the settings.
func (s Settings) Check() error {
	var problems []error
	for _, problem := range validation.IsDNS1123Label(s.Node) {
		problem, _, _ = strings.Cut(problem, " (e.g.") // and the regular expression
		problems = append(problems, fmt.Errorf("name the machine %q: %s: choose one with --node", s.Node, problem))
	}
	if net.ParseIP(s.Address).To4() == nil {
		problems = append(problems, fmt.Errorf("address %q is no IPv4 address: give one with --address", s.Address))
	}
	found := validation.IsDNS1123Subdomain(s.Domain)
	if net.ParseIP(s.Domain) != nil {
		found = []string{"it is an address"}
	}
	if len(s.Domain) > longestDomain {
		found = append(found, fmt.Sprintf("must be no more than %d bytes", longestDomain))
	}
	for _, problem := range found {
		problem, _, _ = strings.Cut(problem, " (e.g.")
		problems = append(problems, fmt.Errorf("domain %q: %s: choose one like apps.example.com", s.Domain, problem))
	}
	return errors.Join(problems...)
}

// longestDomain leaves room for the names of apps and namespaces below it.
const longestDomain = 190

// SaveSettings checks and keeps the settings.
func SaveSettings(d dirs.Dirs, s Settings) error {
	s.DataVersion = dataVersion
	if err := s.Check(); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.Data, 0o755); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	if err := durable.WriteFile(settingsPath(d), append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep the machine's settings: %w", err)
	}
	return nil
}

// Complete fills what the settings leave open: from the host, and with the
// defaults.
func (s Settings) Complete() (Settings, error) {
	if s.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return s, fmt.Errorf("find the machine's name: %w: choose one with --node", err)
		}
		s.Node = strings.ToLower(strings.Split(host, ".")[0])
	}
	if s.Address == "" {
		ip, err := Address()
		if err != nil {
			return s, err
		}
		s.Address = ip.String()
	}
	if s.Domain == "" {
		s.Domain = "emerald.localhost"
	}
	return s, nil
}
