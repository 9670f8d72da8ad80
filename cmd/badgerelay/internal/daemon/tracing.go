package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"badgerelay/cmd/internal/process"
)

// tracing exports spans. A nil *tracing traces nothing.
type tracing struct{ sdk *sdktrace.TracerProvider }

// startTracing starts what exports spans, nil where nothing does.
func (d *daemon) startTracing(ctx context.Context, lifecycle *process.Lifecycle) (*tracing, error) {
	t, err := newTracing(ctx, d.config.SampleRatio(), d.version, d.instance, d.logger)
	if err != nil {
		return nil, fmt.Errorf("set up tracing: %w", err)
	}
	if t != nil {
		lifecycle.Start("tracing", t.Run, nil)
	}
	return t, nil
}

// newTracing reads OpenTelemetry's standard variables; nil where they name no
// place to send traces to.
//
// Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter" and
// "General SDK Configuration" (read 2026-11).
func newTracing(ctx context.Context, ratio float64, version, instance string, logger *slog.Logger) (*tracing, error) {
	if !tracingWanted(os.Getenv) {
		return nil, nil
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, err
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "badgerelay"),
		attribute.String("service.version", version),
		attribute.String("service.instance.id", instance),
	), resource.WithFromEnv(), resource.WithTelemetrySDK()) // the variables win: they come later
	if err != nil {
		return nil, err
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithBatcher(exporter), sdktrace.WithResource(about)}
	if os.Getenv("OTEL_TRACES_SAMPLER") == "" {
		options = append(options, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))))
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("traces are lost", "error", err) })) // its own writes to standard error
	logger.Info("tracing", "sample_ratio", ratio)
	return &tracing{sdktrace.NewTracerProvider(options...)}, nil
}

func tracingWanted(getenv func(string) string) bool {
	if getenv("OTEL_SDK_DISABLED") == "true" || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// provider returns what makes spans, nil where nothing is traced.
func (t *tracing) provider() trace.TracerProvider {
	if t == nil {
		return nil
	}
	return t.sdk
}

// Run sends what is left when ctx is done.
func (t *tracing) Run(ctx context.Context) error {
	<-ctx.Done()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	_ = t.sdk.Shutdown(last) // a collector that is away must not fail the stop
	return nil
}
