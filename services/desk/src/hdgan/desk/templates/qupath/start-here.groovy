// Run once before labelling: Automate > Project scripts... > start-here, then Run.
//
// Every image that has not been saved yet gets an image type, so that QuPath does not ask for it
// one image at a time, and the shapes that labels/<split>-<id>.geojson has of it, if any. Images
// that were saved are left as they are.
import qupath.lib.images.ImageData
import qupath.lib.io.PathIO
import static qupath.lib.gui.scripting.QPEx.*

def project = getProject()
if (project == null) {
    println 'Open project.qpproj first'
    return
}
def shown = getProjectEntry()
int prepared = 0
int shapes = 0
for (entry in project.getImageList()) {
    def candidate = entry.getMetadataValue('hdgan-candidate')
    if (candidate == null || entry.hasImageData())
        continue
    def name = entry.getMetadataValue('split') + '-' + candidate
    def isShown = shown != null && shown.getID() == entry.getID()
    def imageData = isShown ? getCurrentImageData() : entry.readImageData()
    imageData.setImageType(ImageData.ImageType.BRIGHTFIELD_OTHER)
    def file = new File(buildFilePath(PROJECT_BASE_DIR, 'labels', name + '.geojson'))
    if (file.isFile() && imageData.getHierarchy().getAnnotationObjects().isEmpty()) {
        def objects = PathIO.readObjects(file.toPath())
        imageData.getHierarchy().addObjects(objects)
        shapes += objects.size()
    }
    entry.saveImageData(imageData)
    if (!isShown)
        imageData.getServer().close()
    prepared++
}
println prepared + ' images prepared, with ' + shapes + ' shapes from labels/'
