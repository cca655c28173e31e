package battery

import (
	"cmp"
	"errors"
	"fmt"
	"go/token"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Defect is one broken rule of the contract. It is comparable, so that tests
// find it in the error of [Validate] with errors.Is.
type Defect struct {
	// Battery is the name of the battery at fault, as written.
	Battery string
	// Field is the field of Battery that breaks the rule, for example "Needs"
	// or "Proofs[2].Claim".
	Field string
	// Problem says what is wrong and what would be right.
	Problem string
}

// Error returns the defect as one line.
func (d Defect) Error() string {
	return fmt.Sprintf("battery %q: %s: %s", d.Battery, d.Field, d.Problem)
}

// nameRule keeps names usable as package, namespace, label and metric prefix.
var nameRule = regexp.MustCompile(`^[a-z][a-z0-9]{0,39}$`)

// reserved are the words that mean something else where battery names are used:
// the shared workloads, their namespace emerald-system, and the platform.
var reserved = []string{"controllers", "node", "platform", "system"}

// Validate checks a whole list of batteries against the contract and returns
// every defect at once, joined; each one is a [Defect]. It returns nil when the
// list is sound. It looks at data only and calls none of the batteries'
// functions.
//
// That each Proof's Feature is a row of the picture is checked by the picture,
// which knows the rows.
func Validate(all []Battery) error {
	var v validation
	seen := map[string]bool{}
	for i := range all {
		b := &all[i]
		v.battery = b.Name
		v.name(b, seen)
		seen[b.Name] = true
		v.sentence("Doc", b.Doc)
		v.needs(b, all)
		if b.Where != Controllers && b.Where != Own && b.Where != EveryNode {
			v.add("Where", "is %d: use Controllers, Own or EveryNode", int(b.Where))
		}
		v.config(b)
		if b.Run == nil && b.Manifests == nil {
			v.add("Run", "is nil and so is Manifests: the battery does nothing")
		}
		if b.Run == nil && b.Where != Controllers {
			v.add("Run", "is nil: a battery whose Where is %q needs a process", b.Where)
		}
		v.proofs(b)
	}
	for _, c := range cycles(all) {
		v.battery = c[0]
		v.add("Needs", "form a cycle: %s", strings.Join(c, " → "))
	}
	return errors.Join(v.defects...)
}

// validation gathers the defects of one call of Validate.
type validation struct {
	battery string
	defects []error
}

func (v *validation) add(field, format string, args ...any) {
	v.defects = append(v.defects, Defect{Battery: v.battery, Field: field, Problem: fmt.Sprintf(format, args...)})
}

func (v *validation) name(b *Battery, seen map[string]bool) {
	switch {
	case !nameRule.MatchString(b.Name):
		v.add("Name", "must be one word of at most 40 lowercase letters and digits, a letter first")
	case !token.IsIdentifier(b.Name):
		v.add("Name", "is a keyword of Go and cannot name a package")
	case slices.Contains(reserved, b.Name):
		v.add("Name", "is reserved for the platform itself")
	}
	if seen[b.Name] {
		v.add("Name", "is used twice")
	}
}

// sentence demands what reads well in a table: one sentence, one line.
func (v *validation) sentence(field, s string) {
	first, _ := utf8.DecodeRuneInString(s)
	switch {
	case strings.TrimSpace(s) == "":
		v.add(field, "is empty: say in one sentence what the user gets")
	case strings.TrimSpace(s) != s || strings.ContainsAny(s, "\n\t"):
		v.add(field, "must be one line without white space around it")
	case !unicode.IsUpper(first) && !unicode.IsDigit(first):
		v.add(field, "must begin with a capital letter")
	case !strings.HasSuffix(s, ".") || strings.HasSuffix(s, ".."):
		v.add(field, "must end with one full stop")
	case strings.Contains(s, ". "):
		v.add(field, "must be one sentence")
	}
}

func (v *validation) needs(b *Battery, all []Battery) {
	seen := map[string]bool{}
	for _, need := range b.Needs {
		known := slices.ContainsFunc(all, func(o Battery) bool { return o.Name == need })
		switch {
		case need == b.Name:
			v.add("Needs", "names the battery itself")
		case !known:
			v.add("Needs", "names %q, which is not in the list", need)
		case seen[need]:
			v.add("Needs", "names %q twice", need)
		}
		seen[need] = true
	}
}

func (v *validation) config(b *Battery) {
	if b.Config == nil {
		return
	}
	t := reflect.TypeOf(b.Config)
	if t.Kind() != reflect.Struct {
		v.add("Config", "is a %s: it must be a struct value holding the defaults, or nil", t)
		return
	}
	got, err := DecodeConfig(b, nil)
	if err != nil {
		v.add("Config", "does not survive JSON: %v", err)
		return
	}
	if !reflect.DeepEqual(got, b.Config) {
		v.add("Config", "does not survive JSON: the defaults %+v come back as %+v", b.Config, got)
	}
}

func (v *validation) proofs(b *Battery) {
	claims := map[string]bool{}
	for i, p := range b.Proofs {
		field := func(name string) string { return fmt.Sprintf("Proofs[%d].%s", i, name) }
		if p.Feature == "" {
			v.add(field("Feature"), "is empty: name a row of the picture")
		}
		v.sentence(field("Claim"), p.Claim)
		if claims[p.Claim] {
			v.add(field("Claim"), "is used twice: results are kept by claim")
		}
		claims[p.Claim] = true
		if p.Check == nil {
			v.add(field("Check"), "is nil: a claim without a check proves nothing")
		}
	}
}

// cycles returns each cycle of Needs once, as the names along it with the first
// repeated at the end, beginning at its alphabetically first name.
func cycles(all []Battery) [][]string {
	needs := map[string][]string{}
	for _, b := range all {
		needs[b.Name] = b.Needs
	}
	var found [][]string
	known := map[string]bool{}
	done := map[string]bool{}
	var path []string
	var visit func(name string)
	visit = func(name string) {
		if at := slices.Index(path, name); at >= 0 {
			// A battery that needs itself is reported where Needs are checked.
			if c := rotate(path[at:]); len(c) > 1 && !known[strings.Join(c, " ")] {
				known[strings.Join(c, " ")] = true
				found = append(found, append(c, c[0]))
			}
			return
		}
		if done[name] {
			return
		}
		path = append(path, name)
		for _, n := range needs[name] {
			visit(n)
		}
		path = path[:len(path)-1]
		done[name] = true
	}
	for _, b := range all {
		visit(b.Name)
	}
	return found
}

// rotate returns a copy of a cycle that begins at its smallest name.
func rotate(cycle []string) []string {
	least := 0
	for i := range cycle {
		if cycle[i] < cycle[least] {
			least = i
		}
	}
	return slices.Concat(cycle[least:], cycle[:least])
}

// Order returns the batteries in waves: every battery comes in the first wave
// after those of all its Needs, and each wave is sorted by name. It is what
// `emerald batteries` shows; the installer itself starts a battery the moment
// its own Needs are ready, without waiting for the rest of a wave. It returns
// an error when Needs are unknown or form a cycle; see [Validate].
func Order(all []Battery) ([][]Battery, error) {
	var waves [][]Battery
	placed := map[string]bool{}
	left := slices.Clone(all)
	for len(left) > 0 {
		var wave, rest []Battery
		for _, b := range left {
			if slices.ContainsFunc(b.Needs, func(n string) bool { return !placed[n] }) {
				rest = append(rest, b)
			} else {
				wave = append(wave, b)
			}
		}
		if len(wave) == 0 {
			return nil, fmt.Errorf("order the batteries: %w", Validate(all))
		}
		for _, b := range wave {
			placed[b.Name] = true
		}
		slices.SortFunc(wave, func(a, b Battery) int { return cmp.Compare(a.Name, b.Name) })
		waves, left = append(waves, wave), rest
	}
	return waves, nil
}
