package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/push"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// registryName is what the certificate of httptest's servers is good for.
const registryName = "example.com"

// restarting is as much of a registry as a push needs, at one address, whose
// process may die and come back. It keeps what it was given.
type restarting struct {
	t       *testing.T
	address string
	refuse  int // status of every upload, 0 to take them
	dieAt   int // the upload in whose middle it dies, counted from 1; 0 never

	mu      sync.Mutex
	server  *httptest.Server
	uploads int
	asked   int
	sent    map[string]int // digest → how often it was stored
}

func newRestarting(t *testing.T) *restarting {
	r := &restarting{t: t, sent: map[string]int{}}
	// Not 127.0.0.1, from which connections go out: one of them could take the
	// port while nobody listens there.
	l, err := net.Listen("tcp", "127.0.0.53:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	l.Close() // from now on it refuses
	t.Cleanup(func() {
		if r.server != nil {
			r.server.CloseClientConnections()
			r.server.Close()
		}
	})
	return r
}

// start makes it listen.
func (r *restarting) start() {
	l, err := net.Listen("tcp", r.address)
	if err != nil {
		r.t.Error(err)
		return
	}
	s := httptest.NewUnstartedServer(r)
	s.Listener.Close()
	s.Listener = l
	s.StartTLS()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server = s
}

// ServeHTTP implements http.Handler.
func (r *restarting) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	what := req.URL.Query().Get("digest")
	if what == "" {
		what = req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	}
	switch {
	case req.Method == http.MethodHead && r.sent[what] > 0:
		w.Header().Set("Docker-Content-Digest", what)
	case req.Method == http.MethodHead:
		w.WriteHeader(http.StatusNotFound)
	case r.refuse != 0:
		w.WriteHeader(r.refuse)
	case req.Method == http.MethodPost:
		w.Header().Set("Location", "/v2/default/shop/blobs/uploads/1")
		w.WriteHeader(http.StatusAccepted)
	case req.Method == http.MethodPut:
		if r.uploads++; r.uploads == r.dieAt {
			r.server.Config.Close()
			panic(http.ErrAbortHandler)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			r.t.Error(err)
		}
		sum := sha256.Sum256(body)
		got := "sha256:" + hex.EncodeToString(sum[:])
		r.sent[got]++
		w.Header().Set("Docker-Content-Digest", got)
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// way returns the builder's way to it, and where what users are told appears.
func (r *restarting) way() (*registries, *[]string) {
	server := httptest.NewTLSServer(http.NotFoundHandler()) // for its authority
	defer server.Close()
	file := filepath.Join(r.t.TempDir(), "ca.crt")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		r.t.Fatal(err)
	}
	told := &[]string{}
	h := newHome(r.address, registryName)
	h.ca = file
	h.tell = func(_ context.Context, line string) {
		*told = append(*told, line)
		r.start()
	}
	return &registries{own: registryName, home: h.client()}, told
}

// image is an image of one layer in a content store.
func image(t *testing.T) (content.Store, digest.Digest) {
	t.Helper()
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	add := func(mediaType string, raw []byte) ocispecs.Descriptor {
		d := ocispecs.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
		if err := content.WriteBlob(t.Context(), store, d.Digest.String(), strings.NewReader(string(raw)), d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	manifest := ocispecs.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageManifest,
		Config: add(ocispecs.MediaTypeImageConfig, []byte("{}")),
		Layers: []ocispecs.Descriptor{add(ocispecs.MediaTypeImageLayerZstd, []byte("a layer"))},
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	return store, add(ocispecs.MediaTypeImageManifest, raw).Digest
}

func TestPushWhileTheRegistryRestarts(t *testing.T) {
	const line = "the registry does not answer, trying again"
	for name, tt := range map[string]struct {
		dieAt int
		told  []string
	}{
		"it is away at first":               {told: []string{line}},
		"it dies in the middle of a blob":   {dieAt: 2, told: []string{line, line}},
		"it dies when the manifest arrives": {dieAt: 3, told: []string{line, line}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRestarting(t)
			r.dieAt = tt.dieAt
			regs, told := r.way()
			store, manifest := image(t)
			if err := pushTo(t, regs, store, manifest); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.told, *told); diff != "" {
				t.Errorf("the user is told (-want +got):\n%s", diff)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.sent) != 3 || slices.Max(slices.Collect(maps.Values(r.sent))) != 1 {
				t.Errorf("want configuration, layer and manifest once each, got %v", r.sent)
			}
		})
	}
}

func TestPushThatIsRefused(t *testing.T) {
	for _, status := range []int{http.StatusBadRequest, http.StatusForbidden} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			r := newRestarting(t)
			r.refuse = status
			regs, told := r.way()
			r.start()
			store, manifest := image(t)
			err := pushTo(t, regs, store, manifest)
			if err == nil || !strings.Contains(err.Error(), http.StatusText(status)) {
				t.Errorf("got error %v", err)
			}
			// Each of the two blobs is asked for and offered once.
			if len(*told) != 0 || r.asked > 4 {
				t.Errorf("%d requests, told %q", r.asked, *told)
			}
		})
	}
}

// The wait has an end, which names the cause and the next command.
func TestRegistryThatStaysAway(t *testing.T) {
	r := newRestarting(t)
	regs, told := r.way()
	h := newHome(r.address, registryName)
	h.patience, h.tell = 3*homeKnock, func(_ context.Context, line string) { *told = append(*told, line) }
	h.ca = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(h.ca, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	regs.home = h.client()
	store, manifest := image(t)
	err := pushTo(t, regs, store, manifest)
	if !errors.Is(err, unix.ECONNREFUSED) || !strings.HasSuffix(err.Error(), "emerald status") {
		t.Errorf("got error %v", err)
	}
	if len(*told) != 1 {
		t.Errorf("told %q", *told)
	}
}

func pushTo(t *testing.T, regs *registries, store content.Store, manifest digest.Digest) error {
	t.Helper()
	sessions, err := session.NewManager()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// BuildKit keeps what it knows of a registry by the image's name.
	name := registryName + "/default/" + digest.FromString(t.TempDir()).Encoded()[:16] + ":1"
	return push.Push(ctx, sessions, "", store, store, manifest, name, false, regs.hosts, false, nil)
}
