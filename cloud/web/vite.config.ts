import { defineConfig } from "vite";

// Relative assets: the page works under any path of a reverse proxy. Nothing is inlined: the page's
// Content-Security-Policy is `default-src 'self'`, which forbids data: addresses and inline scripts.
export default defineConfig({
  base: "./",
  build: { outDir: "dist", target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { "/api": "http://127.0.0.1:5001", "/health": "http://127.0.0.1:5001" } },
});
