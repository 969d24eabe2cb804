# Debian's slim image, not Alpine's: only glibc is tested.
FROM node:24.21.0-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
# No install scripts: they would install a second Node.js and prepare the embedded PostgreSQL. Nothing here needs compiling.
RUN npm ci --ignore-scripts
# .dockerignore limits this to the sources.
COPY . .
RUN npm run build

FROM node:24.21.0-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# Optional dependencies are platform-specific programs of the embedded PostgreSQL and the TypeScript loader, neither of which is needed.
RUN npm ci --ignore-scripts --omit=dev --omit=optional

FROM node:24.21.0-slim
WORKDIR /app
# In a container, 0.0.0.0 covers only the container's own addresses; -p or docker-compose.yml decides what is reachable from outside.
ENV HOST=0.0.0.0 OPS_HOST=0.0.0.0 OPS_PORT=9100
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /app/dist dist
USER node
EXPOSE 8000
# Not curl, which the slim image lacks.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + process.env.OPS_PORT + '/ready').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
# Node itself, not npm, so that it receives SIGTERM when the container is stopped.
# Without a heap limit, V8 lets garbage grow to the memory that it finds. With this limit alone, V8 would choose a young generation of 2 MiB
# and collect all the time.
CMD ["node", "--max-old-space-size=256", "--max-semi-space-size=32", "dist/scripts/start.js"]
