// Package bases makes, on the cluster itself, the base images that Dockerfiles
// usually start from and that could not be pulled: Debian from the machine's
// own Debian mirror, Go from its Go module proxy, Node.js from its npm
// registry, Python and nginx from Debian.
//
// It promises that an image answers to the name that was asked for and is what
// that name says: the Debian suite, the language version. What cannot be kept
// to is refused with the names that can be had, never replaced by something
// like it. Whoever waits for the build is told where the image came from, and
// the image says it in its labels.
//
// A recipe is a Dockerfile with a folder of verified downloads; the builder
// itself builds it, and what it starts FROM is asked for like any other base.
//
// Invariant: every download is verified before it is used, by Debian's
// signature, Go's checksum database or the digest in npm's index.
package bases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/flightcontrol"
	"github.com/moby/buildkit/util/progress/progressui"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"

	"github.com/emerald-platform/emerald/batteries/build/daemon"
)

// Labels on every image made here.
const (
	// LabelMade is when it was made (RFC 3339).
	LabelMade = "dev.emerald.base.made"
	// LabelName is the name it was asked for under. Images built FROM it inherit
	// its labels; only one whose own name this is was made here.
	LabelName = "dev.emerald.base.name"
	// LabelFrom says in words of what it was made.
	LabelFrom = "dev.emerald.base.from"
)

// Sources says where the machine gets its packages from. An empty field means
// the place everybody uses.
type Sources struct {
	DebianMirror string // such as "http://deb.debian.org/debian"
	DebianSuite  string // the suite of the machine, for names that say none
	GoProxy      string // as in GOPROXY
	NPMRegistry  string
}

// Options are what a Maker works with. It is not changed after [New].
type Options struct {
	// Client connects to the builder. It is called for every image made.
	Client func(context.Context) (*client.Client, error)

	// HTTP makes the downloads, with the machine's proxies and certificate
	// authorities.
	HTTP *http.Client

	// Sources returns the present sources; called for every image made.
	Sources func() Sources

	// Push returns the name to push an image to that was asked for as ref, and
	// a login for it, which may be nil.
	Push func(ref string) (name string, login session.Attachable)

	// Scratch is a directory for downloads, emptied after use.
	Scratch string

	// MaxAge is how old an image may get before it is made again.
	MaxAge time.Duration

	// Now is the clock.
	Now func() time.Time
}

// Maker makes base images. It is safe for concurrent use; an image that is
// asked for twice at a time is made once.
type Maker struct {
	opts    Options
	flights flightcontrol.Group[struct{}]

	mu     sync.Mutex
	failed map[string]time.Time // by ref: when a remake last failed
}

var _ daemon.Bases = (*Maker)(nil)

// New returns a Maker.
func New(opts Options) *Maker { return &Maker{opts: opts, failed: map[string]time.Time{}} }

// retryStale is how long a remake that failed is not tried again: builds use
// the old image meanwhile.
const retryStale = time.Hour

// Stale implements daemon.Bases.
func (m *Maker) Stale(ref string, config []byte) bool {
	var image ocispecs.Image
	if json.Unmarshal(config, &image) != nil {
		return false
	}
	made, err := time.Parse(time.RFC3339, image.Config.Labels[LabelMade])
	if image.Config.Labels[LabelName] != ref || err != nil || m.opts.Now().Sub(made) < m.opts.MaxAge {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opts.Now().Sub(m.failed[ref]) > retryStale
}

// Make implements daemon.Bases.
func (m *Maker) Make(ctx context.Context, ref string, out io.Writer) error {
	r, err := find(ref)
	if err != nil {
		return err
	}
	_, err = m.flights.Do(ctx, ref, func(ctx context.Context) (struct{}, error) {
		err := m.make(ctx, ref, r, out)
		m.mu.Lock()
		defer m.mu.Unlock()
		if err != nil {
			m.failed[ref] = m.opts.Now()
		} else {
			delete(m.failed, ref)
		}
		return struct{}{}, err
	})
	if err != nil {
		return fmt.Errorf("make %s: %w", reference.FamiliarString(r.name), err)
	}
	return nil
}

// recipe makes one family of images.
type recipe struct {
	name reference.Named
	tag  string
	// prepare downloads into the kitchen and writes the Dockerfile.
	prepare func(ctx context.Context, k *kitchen, tag string) (dish, error)
}

// dish is a prepared recipe.
type dish struct {
	dockerfile string
	from       string // in words, for people and the label
}

// kitchen is where one image is prepared.
type kitchen struct {
	Sources
	dir  string // the build context
	http *http.Client
	out  io.Writer
	now  time.Time
}

func (k *kitchen) say(format string, args ...any) { fmt.Fprintf(k.out, format+"\n", args...) }

// familyNames lists what can be made, for errors.
func familyNames() string {
	return strings.Join(slices.Sorted(maps.Keys(families)), ", ")
}

// families are the recipes by repository.
var families = map[string]func(context.Context, *kitchen, string) (dish, error){
	"docker.io/library/debian":  prepareDebian,
	"docker.io/library/golang":  prepareGo,
	"docker.io/library/node":    prepareNode,
	"docker.io/library/python":  preparePython,
	"docker.io/library/nginx":   prepareNginx,
	"docker.io/library/busybox": prepareBusybox,
	"gcr.io/distroless/static":  prepareDistroless,
}

// find returns the recipe of an image name.
func find(ref string) (recipe, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return recipe{}, fmt.Errorf("%w: %w", daemon.ErrUnknownBase, err)
	}
	if _, pinned := named.(reference.Digested); pinned {
		return recipe{}, fmt.Errorf("%w: %s is pinned to a digest that only its own registry has", daemon.ErrUnknownBase, reference.FamiliarString(named))
	}
	tag := "latest"
	if t, ok := named.(reference.Tagged); ok {
		tag = t.Tag()
	}
	if strings.Contains(tag, "alpine") || strings.HasSuffix(named.Name(), "/alpine") {
		return recipe{}, fmt.Errorf("%w: Alpine Linux needs its own packages, which this machine has no mirror of; use an image of Debian, such as %s",
			daemon.ErrUnknownBase, withoutAlpine(named, tag))
	}
	family := named.Name()
	if strings.HasPrefix(family, "gcr.io/distroless/static-debian") {
		family, tag = "gcr.io/distroless/static", strings.TrimPrefix(family, "gcr.io/distroless/static-")+":"+tag
	}
	prepare, ok := families[family]
	if !ok {
		return recipe{}, fmt.Errorf("%w: known here are %s", daemon.ErrUnknownBase, strings.ReplaceAll(familyNames(), "docker.io/library/", ""))
	}
	return recipe{name: named, tag: tag, prepare: prepare}, nil
}

func withoutAlpine(named reference.Named, tag string) string {
	if strings.HasSuffix(named.Name(), "/alpine") {
		return "debian:bookworm-slim"
	}
	version, _, _ := strings.Cut(tag, "alpine")
	return reference.FamiliarName(named) + ":" + version + "bookworm"
}

// make prepares, builds and pushes.
func (m *Maker) make(ctx context.Context, ref string, r recipe, out io.Writer) error {
	if err := os.MkdirAll(m.opts.Scratch, 0o700); err != nil {
		return fmt.Errorf("create a directory for downloads: %w", err)
	}
	dir, err := os.MkdirTemp(m.opts.Scratch, "base-")
	if err != nil {
		return fmt.Errorf("create a directory for downloads: %w", err)
	}
	defer os.RemoveAll(dir) // leftovers of a crash are removed at the next start
	// An archive's index is a hundred megabytes of garbage afterwards, and the
	// next image may be made in a month.
	defer debug.FreeOSMemory()

	k := &kitchen{Sources: withUsual(m.opts.Sources()), dir: dir, http: m.opts.HTTP, out: out, now: m.opts.Now()}
	d, err := r.prepare(ctx, k, r.tag)
	if err != nil {
		return err
	}
	k.say("%s: made here from %s, as no registry had it", reference.FamiliarString(r.name), d.from)
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(d.dockerfile), 0o600); err != nil {
		return fmt.Errorf("write the recipe: %w", err)
	}
	return m.build(ctx, ref, dir, d, out)
}

// withUsual fills in the places that everybody uses.
func withUsual(s Sources) Sources {
	for _, f := range []struct {
		field *string
		usual string
	}{
		{&s.DebianMirror, "http://deb.debian.org/debian"},
		{&s.DebianSuite, "bookworm"},
		{&s.GoProxy, "https://proxy.golang.org"},
		{&s.NPMRegistry, "https://registry.npmjs.org"},
	} {
		if *f.field == "" {
			*f.field = f.usual
		}
		*f.field = strings.TrimRight(*f.field, "/")
	}
	return s
}

// build runs the recipe on the builder and repeats its progress on out.
func (m *Maker) build(ctx context.Context, ref, dir string, d dish, out io.Writer) error {
	bk, err := m.opts.Client(ctx)
	if err != nil {
		return err
	}
	defer bk.Close()
	source, err := fsutil.NewFS(dir)
	if err != nil {
		return fmt.Errorf("read the recipe: %w", err)
	}
	name, login := m.opts.Push(ref)
	var logins []session.Attachable
	if login != nil {
		logins = append(logins, login)
	}
	statuses := make(chan *client.SolveStatus)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := bk.Solve(gctx, nil, client.SolveOpt{
			Frontend: "dockerfile.v0",
			FrontendAttrs: map[string]string{
				"label:" + LabelMade: m.opts.Now().UTC().Format(time.RFC3339),
				"label:" + LabelName: ref,
				"label:" + LabelFrom: d.from,
			},
			LocalMounts: map[string]fsutil.FS{"context": source, "dockerfile": source},
			Session:     logins,
			Exports: []client.ExportEntry{{Type: client.ExporterImage, Attrs: map[string]string{
				string(exptypes.OptKeyName):             name,
				string(exptypes.OptKeyPush):             "true",
				string(exptypes.OptKeyOCITypes):         "true",
				string(exptypes.OptKeyLayerCompression): "zstd",
				string(exptypes.OptKeyCompressionLevel): "3",
			}}},
		}, statuses)
		return err
	})
	g.Go(func() error {
		display, err := progressui.NewDisplay(out, progressui.PlainMode)
		if err != nil {
			for range statuses { // the build must not wait for a reader
			}
			return err
		}
		_, err = display.UpdateFrom(context.Background(), statuses)
		return err
	})
	return g.Wait()
}

// errNoVersion says that a name asks for a version that the sources lack.
func errNoVersion(what, asked, have string) error {
	return fmt.Errorf("%w: %s %q is not to be had here; there is %s", daemon.ErrUnknownBase, what, asked, have)
}

// isMissing tells whether an error says that a source does not have a file.
func isMissing(err error) bool { return errors.Is(err, errMissing) }
