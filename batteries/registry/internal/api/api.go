// Package api serves the OCI distribution API, version 1.1, over a store:
// pushes, pulls, deletions, tags, referrers, and copies of other registries'
// images.
//
// It promises that a status of success is sent only for what would survive a
// power loss, and that every error names its object, its cause and what to do.
// It refuses everything to callers it does not know, and to others what the
// Authorize function refuses.
//
// Invariant: no handler runs before the caller was authenticated and allowed to
// do what the method means on the repository that the path names.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/emerald-platform/emerald/batteries/registry/internal/store"
	"github.com/emerald-platform/emerald/batteries/registry/internal/upstream"
)

// Action is what a caller wants to do with a repository, in the verbs of
// Kubernetes.
type Action string

// The actions.
const (
	Pull    Action = "get"
	Push    Action = "update"
	Delete  Action = "delete"
	List    Action = "list"             // see which repositories there are
	Collect Action = "deletecollection" // remove garbage
)

// Everywhere stands for all repositories where an action is about no single
// one.
const Everywhere = "*"

// Caller is who sent a request.
type Caller struct {
	Name   string // for the log, and to be authorised by
	UID    string
	Groups []string
	Extra  map[string][]string
}

// Errors that an Authenticate function returns. They are compared with errors.Is.
var (
	// ErrUnauthenticated says that the request carries no credentials or wrong
	// ones.
	ErrUnauthenticated = errors.New("not logged in")
	// ErrUnavailable says that whom to ask about a caller does not answer. An
	// Authorize function may return it, too.
	ErrUnavailable = errors.New("the cluster does not say who may do what")
)

// Options make a [Handler].
type Options struct {
	Store *store.Store
	// Authenticate returns who sent a request, [ErrUnauthenticated], or what
	// kept it from finding out. Called concurrently.
	Authenticate func(*http.Request) (Caller, error)
	// Authorize tells whether a caller may do that. Called concurrently.
	Authorize func(ctx context.Context, c Caller, a Action, repository string) (bool, error)
	// Upstream copies other registries' images. Nil copies nothing.
	Upstream *upstream.Puller
	// Collect runs the garbage collection, for POST to [CollectPath].
	Collect func(context.Context) (store.Collected, error)
	// Realm names the registry to people who are asked for a password.
	Realm string
	// MaxBlob is the size in bytes of the largest blob that may be pushed.
	MaxBlob int64
	// Reserve is how many bytes of the disk pushes leave free.
	Reserve int64
	// Log gets one line per request. Never nil.
	Log *slog.Logger
	// Metrics gets the counters. Nil registers none.
	Metrics prometheus.Registerer
}

// CollectPath is where POST runs a garbage collection and answers with what it
// removed, a store.Collected in JSON.
const CollectPath = "/emerald/v1/collect"

// Handler is the registry's HTTP side.
type Handler struct {
	opts    Options
	metrics *metrics
}

// New returns the handler.
func New(opts Options) *Handler {
	return &Handler{opts: opts, metrics: newMetrics(opts.Metrics, opts.Store)}
}

// Counted tells the metrics how a request for another registry's image ended;
// it is meant for upstream.Options.
func (h *Handler) Counted(host string, o upstream.Outcome) {
	h.metrics.upstream.WithLabelValues(host, string(o)).Inc()
}

// Server returns an HTTP server of the handler with timeouts: none for a
// transfer that moves, a minute for one that does not. The caller adds address
// and certificates.
func (h *Handler) Server() *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       patience,
		WriteTimeout:      patience,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    32 << 10, // a token and some
		ErrorLog:          slog.NewLogLogger(h.opts.Log.Handler(), slog.LevelDebug),
	}
}

// request is one request on its way.
type request struct {
	*http.Request
	h      *Handler
	w      *response
	route  route
	caller Caller
	repo   *store.Repo // nil where the route is about no single one
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	req := &request{Request: r, h: h, w: newResponse(w)}
	req.w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	defer func() {
		cause := recover()
		h.record(req, time.Since(begun), cause != nil)
		if cause != nil {
			panic(cause)
		}
	}()
	if err := req.serve(); err != nil {
		req.fail(err)
	}
}

// serve finds out who wants what, and has it done.
func (r *request) serve() error {
	var err error
	if r.caller, err = r.h.opts.Authenticate(r.Request); err != nil {
		return err
	}
	if r.route, err = parseRoute(r.URL.Path); err != nil {
		return err
	}
	do, action := r.handler()
	if do == nil {
		return &failure{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: r.Method + " means nothing here"}
	}
	if action == "" {
		return do()
	}
	about := Everywhere
	if r.route.repo != "" {
		if r.repo, err = r.h.opts.Store.Repo(r.route.repo); err != nil {
			return err
		}
		about = r.repo.Name()
		if !strings.Contains(about, "/") {
			return store.ErrNameInvalid // it has no namespace, so nobody has rights there
		}
	}
	if err := r.allowed(action, about); err != nil {
		return err
	}
	return do()
}

// handler returns what a method means on a route, and what it takes to be
// allowed to do it.
func (r *request) handler() (func() error, Action) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	switch r.route.kind.String() + " " + method {
	case "ping GET":
		return r.ping, ""
	case "catalog GET":
		return r.listRepositories, "" // asks itself, for one namespace or all
	case "collect POST":
		return r.collect, Collect
	case "blob GET":
		return r.getBlob, Pull
	case "blob DELETE":
		return r.deleteBlob, Delete
	case "uploads POST":
		return r.startUpload, Push
	case "upload GET":
		return r.getUpload, Push
	case "upload PATCH":
		return r.patchUpload, Push
	case "upload PUT":
		return r.putUpload, Push
	case "upload DELETE":
		return r.cancelUpload, Push
	case "manifest GET":
		return r.getImage, Pull
	case "manifest PUT":
		return r.putImage, Push
	case "manifest DELETE":
		return r.deleteImage, Delete
	case "tags GET":
		return r.listTags, Pull
	case "referrers GET":
		return r.listReferrers, Pull
	}
	return nil, ""
}

// allowed returns an error unless the caller may do that.
func (r *request) allowed(a Action, repository string) error {
	ok, err := r.h.opts.Authorize(r.Context(), r.caller, a, repository)
	if err != nil {
		return err
	}
	if !ok {
		return denied(r.caller, a, repository)
	}
	return nil
}

// ping answers that this is a registry, and that the caller is known to it.
func (r *request) ping() error {
	return r.json(http.StatusOK, struct{}{})
}

func (r *request) collect() error {
	r.w.extend(time.Hour) // a large store takes minutes
	// Whoever asked may leave; what was begun is finished.
	done, err := r.h.opts.Collect(context.WithoutCancel(r.Context()))
	if err != nil {
		return err
	}
	return r.json(http.StatusOK, done)
}
