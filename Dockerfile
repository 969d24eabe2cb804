# Debian's slim image and not Alpine's: what is tested is glibc.
FROM node:24.21.0-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
# No install scripts: they would bring a second Node.js and prepare the embedded PostgreSQL. Nothing here is compiled.
RUN npm ci --ignore-scripts
# .dockerignore says what is source.
COPY . .
RUN npm run build

FROM node:24.21.0-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# Optional are the programs for one platform each: the embedded PostgreSQL's and the TypeScript loader's.
RUN npm ci --ignore-scripts --omit=dev --omit=optional

FROM node:24.21.0-slim
WORKDIR /app
# In a container "all addresses" are the container's own; what the outside reaches is said by -p or docker-compose.yml.
ENV HOST=0.0.0.0 OPS_HOST=0.0.0.0 OPS_PORT=9100
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /app/dist dist
USER node
EXPOSE 8000
# Not curl, which the slim image lacks.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + process.env.OPS_PORT + '/ready').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
# Node itself and not npm: whoever stops the container sends SIGTERM to this very process.
# The heap has a limit: without one V8 lets garbage pile up as far as it finds memory. Of the limit V8 would make room of 2 MiB for
# what is new, and collect all the time.
CMD ["node", "--max-old-space-size=256", "--max-semi-space-size=32", "dist/scripts/start.js"]
